"""English tasks that phase 2 fine-tunes on, with the columns that the Hugging Face hub serves.

Which ones: Phang et al. 2020 (arXiv 2005.13013), Table 1. Sizes are the published ones; a mirror may hold
fewer rows, and identity is by the checksum of the file that was read.
"""

from __future__ import annotations

from xstilts.tasks.registry import register
from xstilts.tasks.task import Family, Split, Task

XQUAD_ENGLISH = "google/xtreme/XQuAD.en/validation"
"""XQuAD's 240 paragraphs are SQuAD dev paragraphs; nothing may be selected on them."""

SQUAD_V1 = register(
    Task(
        name="squad_v1",
        family=Family.SPAN_QA,
        roles=("intermediate",),
        metric="squad",
        languages=("en",),
        columns={
            "id": "id",
            "question": "question",
            "context": "context",
            "answers": "answers",
            "cluster": "title",
        },
        train=Split(path="rajpurkar/squad", config="plain_text", split="train"),
        selection=Split(
            path="rajpurkar/squad",
            config="plain_text",
            split="validation",
            exclude_contexts_of=XQUAD_ENGLISH,
        ),
        source="Rajpurkar et al. 2016 (arXiv 1606.05250): 87,599 and 10,570 questions; hub rajpurkar/squad",
        licence="CC BY-SA 4.0",
    )
)

SQUAD_V2 = register(
    Task(
        name="squad_v2",
        family=Family.SPAN_QA,
        roles=("intermediate",),
        metric="squad",
        languages=("en",),
        columns=SQUAD_V1.columns,
        labels=("answerable", "unanswerable"),
        train=Split(path="rajpurkar/squad_v2", config="squad_v2", split="train"),
        selection=Split(
            path="rajpurkar/squad_v2",
            config="squad_v2",
            split="validation",
            exclude_contexts_of=XQUAD_ENGLISH,
        ),
        source="Rajpurkar et al. 2018 (arXiv 1806.03822): 130,319 and 11,873 questions; hub squad_v2",
        licence="CC BY-SA 4.0",
    )
)

MNLI = register(
    Task(
        name="mnli",
        family=Family.CLASSIFICATION,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={"text": "premise", "pair": "hypothesis", "label": "label", "cluster": "premise"},
        labels=("entailment", "neutral", "contradiction"),
        train=Split(path="nyu-mll/multi_nli", split="train"),
        selection=Split(path="nyu-mll/multi_nli", split="validation_matched"),
        chance=100 / 3,
        source="Williams et al. 2018 (arXiv 1704.05426): 392,702 and 9,815 pairs; hub nyu-mll/multi_nli",
        licence="OANC, CC BY 3.0 and CC BY-SA 3.0 by genre (MultiNLI)",
    )
)

CSQA = register(
    Task(
        name="csqa",
        family=Family.MULTIPLE_CHOICE,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={"item": "id", "first": "question", "choices": "choices.text", "label": "answerKey"},
        labels=("A", "B", "C", "D", "E"),
        train=Split(path="tau/commonsense_qa", split="train"),
        selection=Split(path="tau/commonsense_qa", split="validation"),
        chance=20.0,
        source="Talmor et al. 2019 (arXiv 1811.00937): 9,741 and 1,221 questions; hub tau/commonsense_qa",
        licence="MIT",
    )
)

HELLASWAG = register(
    Task(
        name="hellaswag",
        family=Family.MULTIPLE_CHOICE,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={"first": "ctx", "choices": "endings", "label": "label"},
        labels=("0", "1", "2", "3"),
        train=Split(path="Rowan/hellaswag", split="train"),
        selection=Split(path="Rowan/hellaswag", split="validation"),
        chance=25.0,
        source="Zellers et al. 2019 (arXiv 1905.07830): 39,905 and 10,042 contexts; hub Rowan/hellaswag",
        licence="MIT",
    )
)

COSMOSQA = register(
    Task(
        name="cosmosqa",
        family=Family.MULTIPLE_CHOICE,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={
            "item": "id",
            "first": "context",
            "second": "question",
            "choices": "answer0,answer1,answer2,answer3",
            "label": "label",
            "cluster": "context",
        },
        labels=("0", "1", "2", "3"),
        train=Split(path="allenai/cosmos_qa", split="train"),
        selection=Split(path="allenai/cosmos_qa", split="validation"),
        chance=25.0,
        source="Huang et al. 2019 (arXiv 1909.00277): 25,262 and 2,985 questions; hub allenai/cosmos_qa",
        licence="CC BY 4.0",
    )
)

SIQA = register(
    Task(
        name="siqa",
        family=Family.MULTIPLE_CHOICE,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={
            "first": "context",
            "second": "question",
            "choices": "answerA,answerB,answerC",
            "label": "label",
            "cluster": "context",
        },
        labels=("1", "2", "3"),
        train=Split(path="allenai/social_i_qa", split="train"),
        selection=Split(path="allenai/social_i_qa", split="validation"),
        chance=100 / 3,
        source="Sap et al. 2019 (arXiv 1904.09728): 33,410 and 1,954 questions; hub allenai/social_i_qa",
        licence="CC BY 4.0",
    )
)

MRPC = register(
    Task(
        name="mrpc",
        family=Family.CLASSIFICATION,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={"text": "sentence1", "pair": "sentence2", "label": "label"},
        labels=("not_equivalent", "equivalent"),
        train=Split(path="nyu-mll/glue", config="mrpc", split="train"),
        selection=Split(path="nyu-mll/glue", config="mrpc", split="validation"),
        source="Dolan & Brockett 2005: 3,668 and 408 pairs; hub nyu-mll/glue, config mrpc",
        licence="Microsoft Research data licence",
    )
)
