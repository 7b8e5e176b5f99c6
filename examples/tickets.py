"""Sort an online shop's messages: five examples a category, probabilities, strangers, and why.

python examples/tickets.py
"""

from quickstudy import FewShotTextClassifier

EXAMPLES = {
    "delivery": ["Where is my parcel?", "Tracking has not moved since Monday", "My order was due yesterday",
                 "Can you deliver on Saturday instead?", "The courier left it with a neighbour I don't know"],
    "refund": ["I want my money back", "You refunded only half of it", "Please cancel and refund the second one",
               "How long until the refund reaches my account?", "I sent the shoes back and was not paid"],
    "sign_in": ["I can't sign in", "The reset link does not work", "My password is not accepted",
                "The code to log in never arrives", "Someone else has logged in as me"],
}  # fmt: skip
NEW = ["has it been shipped yet?", "the link in your mail is dead", "I paid twice", "what a nice day"]

texts = [text for some in EXAMPLES.values() for text in some]
labels = [label for label, some in EXAMPLES.items() for _ in some]
model = FewShotTextClassifier(coverage=0.9).fit(texts, labels)

print(f"{model.choice_.chosen.name}: {model.choice_.reason}")
for text, answer in zip(NEW, model.predictions(NEW), strict=True):
    print(f"{answer.label or 'none of these':14} {text}")
print("because of:", model.explain(NEW[2], most=1).influences[0].item)
