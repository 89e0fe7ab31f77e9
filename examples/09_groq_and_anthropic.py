"""What about the other SDKs? The same prefix in front of the same import, and limits of their own."""

from ratelimited_llm.anthropic import Anthropic  # was: from anthropic import Anthropic
from ratelimited_llm.groq import Groq  # was: from groq import Groq

WORDS = ["ferry", "lantern", "allotment", "umbrella"]

groq = Groq()
anthropic = Anthropic()

# Two queues, since two providers count separately; neither waits for the other.
rhymes = [
    groq.chat.completions.create(
        model="llama-3.3-70b-versatile",
        messages=[{"role": "user", "content": f"Find a word that rhymes with {word}."}],
        max_tokens=20,
    )
    for word in WORDS
]
origins = [
    anthropic.messages.create(
        model="claude-haiku-4-5",
        messages=[{"role": "user", "content": f"Where does the word {word} come from?"}],
        max_tokens=60,
    )
    for word in WORDS
]

for word, rhyme, origin in zip(WORDS, rhymes, origins, strict=True):
    print(f"{word:10} groq:      {rhyme.choices[0].message.content:.60}")
    text = "".join(block.text for block in origin.content if block.type == "text")
    print(f"{'':10} anthropic: {text:.60}")
