"""How do I get checked objects instead of text, for many mails at once?"""

from typing import Literal

from pydantic import BaseModel

from ratelimited_llm import OpenAI

MAILS = [
    "You took the yearly fee on the 3rd, although I switched to monthly in May. Please put it right.",
    "The washing machine stops in the middle of the cycle and shows a red light.",
    "Could you send the parcel to my neighbour at number 12? I am away until Monday.",
]


class Ticket(BaseModel):
    department: Literal["billing", "delivery", "technical", "other"]
    urgent: bool
    summary: str


client = OpenAI()
answers = [
    client.chat.completions.parse(
        model="gpt-4.1-mini",
        messages=[
            {"role": "system", "content": "Sort the mail and sum it up in at most ten words."},
            {"role": "user", "content": mail},
        ],
        response_format=Ticket,
    )
    for mail in MAILS
]
for mail, answer in zip(MAILS, answers, strict=True):
    ticket = answer.choices[0].message.parsed
    print(f"{mail[:40]:40}  {ticket!r}")
