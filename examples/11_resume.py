"""My script was stopped in the middle: does it have to pay for the answers again?"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ratelimited_llm import OpenAI

WORDS = ["anchor", "barley", "cinder", "drizzle", "ember", "fathom", "gravel", "harbour", "island", "juniper"]
QUESTIONS = [f"Use the word {word} in sentence number {number}." for number in range(1, 5) for word in WORDS]


def job(journal: Path) -> None:
    """An ordinary script. The journal is all that makes it resumable: run it again, and it goes on."""
    # One call every 20 ms, so that there is time to stop it; real limits do the same by themselves.
    client = OpenAI(journal=journal, min_interval=0.02)
    answers = [
        client.chat.completions.create(
            model="gpt-4.1-mini", messages=[{"role": "user", "content": question}], max_tokens=20
        )
        for question in QUESTIONS
    ]
    for number, answer in enumerate(answers, start=1):
        print(f"{number}: {answer.choices[0].message.content:.40}", flush=True)
    status = client.status()
    print(f"{status.replayed} answers reused, {status.answered} asked for", flush=True)


def run(journal: Path, stop_after: int) -> list[str]:
    """Run the job in a process of its own, press Ctrl-C after so many lines, and return what it printed."""
    command = [sys.executable, __file__, str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) == stop_after:
                process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        errors = process.stderr.read().splitlines()
    return lines + [line for line in errors if line.startswith("ratelimited_llm:")]


def main() -> None:
    """Stop the job after ten answers, and run it again."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "run.db"
        first = run(journal, stop_after=10)
        print(*first[9:], sep="\n")
        second = run(journal, stop_after=-1)
        print(*second[-2:], sep="\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        job(Path(sys.argv[1]))
    else:
        main()
