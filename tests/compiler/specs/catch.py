"""A judge of the judged spec's own: whether an answer catches itself."""


def caught(question: str, answer: str) -> dict[str, bool]:
    return {"caught": "wait" in answer.lower()}
