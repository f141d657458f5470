"""English tasks that phase 2 fine-tunes on, with the columns that the Hugging Face hub serves.

Which ones: Phang et al. 2020 (arXiv 2005.13013), Table 1. Sizes are the published ones; a mirror may hold
fewer rows, and identity is by the checksum of the file that was read.
"""

from __future__ import annotations

from xstilts.tasks.registry import register
from xstilts.tasks.task import Family, Holdout, Keep, Split, Task

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
            without="xquad",
        ),
        size="87,599 train, 10,570 dev",
        source="Rajpurkar et al. 2016 (arXiv 1606.05250); hub rajpurkar/squad",
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
            without="xquad",
        ),
        size="130,319 train, 11,873 dev",
        source="Rajpurkar et al. 2018 (arXiv 1806.03822); hub squad_v2",
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
        translations=Split(path="facebook/xnli", config="{code}", split="train"),
        chance=100 / 3,
        size="392,702 train, 9,815 dev",
        source="Williams et al. 2018 (arXiv 1704.05426); hub nyu-mll/multi_nli",
        licence="OANC, CC BY 3.0 and CC BY-SA 3.0 by genre (MultiNLI)",
    )
)

AGREED = Keep(column="label", drop=(-1,))
"""Without SNLI's pairs on which annotators did not agree, which the hub labels -1."""

SNLI = Split(path="stanfordnlp/snli", config="plain_text", split="train", keep=AGREED)
SNLI_DEV = SNLI.model_copy(update={"split": "validation"})

ANLI_PLUS = register(
    Task(
        name="anli_plus",
        family=Family.CLASSIFICATION,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns=MNLI.columns,
        labels=MNLI.labels,
        train=Split(
            path="facebook/anli",
            config="plain_text",
            split="train_r1",
            more=(
                Split(path="facebook/anli", config="plain_text", split="train_r2"),
                Split(path="facebook/anli", config="plain_text", split="train_r3"),
                Split(path="nyu-mll/multi_nli", split="train"),
                SNLI,
            ),
        ),
        selection=Split(
            path="facebook/anli",
            config="plain_text",
            split="dev_r1",
            more=(
                Split(path="facebook/anli", config="plain_text", split="dev_r2"),
                Split(path="facebook/anli", config="plain_text", split="dev_r3"),
                Split(path="nyu-mll/multi_nli", split="validation_matched"),
                SNLI_DEV,
            ),
        ),
        chance=100 / 3,
        size="1,104,934 train, 22,857 dev",
        source="ANLI (Nie et al. 2020), MNLI and SNLI (Bowman et al. 2015) as one NLI task, Phang et al. "
        "2020 Table 1; hub facebook/anli, nyu-mll/multi_nli, stanfordnlp/snli",
        licence="ANLI CC BY-NC 4.0; MultiNLI by genre; SNLI CC BY-SA 4.0",
    )
)

QQP = register(
    Task(
        name="qqp",
        family=Family.CLASSIFICATION,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={"text": "question1", "pair": "question2", "label": "label"},
        labels=("not_duplicate", "duplicate"),
        train=Split(path="nyu-mll/glue", config="qqp", split="train"),
        selection=Split(path="nyu-mll/glue", config="qqp", split="validation"),
        size="363,846 train, 40,430 dev",
        source="Quora Question Pairs in GLUE (Wang et al. 2018); hub nyu-mll/glue",
        licence="see the card of nyu-mll/glue; Quora states its own terms",
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
        size="9,741 train, 1,221 dev",
        source="Talmor et al. 2019 (arXiv 1811.00937); hub tau/commonsense_qa",
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
        size="39,905 train, 10,042 dev",
        source="Zellers et al. 2019 (arXiv 1905.07830); hub Rowan/hellaswag",
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
        size="25,262 train, 2,985 dev",
        source="Huang et al. 2019 (arXiv 1909.00277); hub allenai/cosmos_qa",
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
        # As XTREME-R reads it on the way to XCOPA: context and question first, then an answer.
        columns={
            "first": "{context} {question}",
            "choices": "answerA,answerB,answerC",
            "label": "label",
            "cluster": "context",
        },
        labels=("1", "2", "3"),
        train=Split(path="allenai/social_i_qa", split="train"),
        selection=Split(path="allenai/social_i_qa", split="validation"),
        chance=100 / 3,
        size="33,410 train, 1,954 dev",
        source="Sap et al. 2019 (arXiv 1904.09728); hub allenai/social_i_qa",
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
        size="3,668 train, 408 dev",
        source="Dolan & Brockett 2005; hub nyu-mll/glue, config mrpc",
        licence="Microsoft Research data licence",
    )
)

COPA = register(
    Task(
        name="copa",
        family=Family.MULTIPLE_CHOICE,
        roles=("intermediate",),
        metric="accuracy",
        languages=("en",),
        columns={
            "item": "idx",
            "first": "{premise} What was the {question}?",
            "choices": "choice1,choice2",
            "label": "label",
        },
        labels=("0", "1"),
        # COPA's published dev is XCOPA's English reference and reported: some 80 of the 400 are held out.
        train=Split(
            path="aps/super_glue",
            config="copa",
            split="train",
            holdout=Holdout(part="train", by="premise", share=0.2),
        ),
        selection=Split(
            path="aps/super_glue",
            config="copa",
            split="train",
            holdout=Holdout(part="select", by="premise", share=0.2),
        ),
        chance=50.0,
        size="400 train, 100 dev",
        source="Roemmele et al. 2011, in SuperGLUE; hub aps/super_glue, config copa",
        licence="CC BY 4.0",
    )
)

CCG = register(
    Task(
        name="ccg",
        family=Family.TAGGING,
        roles=("intermediate",),
        metric="token_accuracy",
        languages=("en",),
        columns={"words": "words", "tags": "tags"},
        open_labels=True,
        train=Split(
            path="ccgbank",
            split="train",
            # Sections 02 to 21.
            files=(
                "files/ccgbank/data/AUTO/0[2-9]/*.auto",
                "files/ccgbank/data/AUTO/1[0-9]/*.auto",
                "files/ccgbank/data/AUTO/2[01]/*.auto",
            ),
            reader="ccgbank",
            owner="https://catalog.ldc.upenn.edu/LDC2005T13",
        ),
        selection=Split(
            path="ccgbank",
            split="dev",
            files=("files/ccgbank/data/AUTO/00/*.auto",),
            reader="ccgbank",
            owner="https://catalog.ldc.upenn.edu/LDC2005T13",
        ),
        size="38,015 train, 5,484 dev",
        source="Hockenmaier & Steedman 2007, supertags; trained on sections 02-21, chosen on 00; your own "
        "copy of CCGbank (LDC2005T13) below files/ccgbank",
        licence="licensed by the LDC to its members and buyers",
    )
)

MLM = register(
    Task(
        name="mlm",
        family=Family.MASKED_LM,
        roles=("intermediate",),
        metric="",
        languages=("en",),
        columns={"text": "text"},
        train=Split(path="wikimedia/wikipedia", config="20231101.{code}", split="train"),
        source="multilingual masked language modelling, only within a mixture; Phang et al. 2020 section 2.3",
        licence="that of the text you name",
    )
)
