"""Documents, messages and comments are plain English: the phrases listed here do not come back."""

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

TEXT = {".py", ".yaml", ".yml", ".md", ".json", ".html", ".js", ".css", ".toml", ".txt", ".conf", ".ipynb", ""}
SKIPPED = {"LICENSE", "tests/test_words.py"}

PER = """case patient core process side step region channel modality level variant class lesion command file scan row
    folder device voxel epoch bundle network cohort seed run edge volume benchmark mm setting recipe"""
COUNTED = """one rows? cases? maps? files? folders? process(?:es)? recipes? lines? values? paths? outlines? sections?
    series errors box(?:es)? bytes? commands? convolutions voxels seconds minutes hours times patients steps hd95 dice
    MB GB ms s"""
PEOPLE = "patients|cases|scans|they|who"

PHRASES = {  # a space stands for any white space, also a line break within a comment or a string
    rf"(?:{'|'.join(COUNTED.split())}) an? (?:{'|'.join(PER.split())})": "per: one row per case",
    r"mend(?:s|ed|ing)?": "fix, how to fix it",
    r"told": "reported, listed, given",
    r"tells? (?:of|it|its|how|in one|little|those)": "reports, shows, distinguishes",
    r"(?:says?|said) (?:of|whom?|whose)": "reports for each, states which",
    r"networks? says?": "the network predicts",
    r"half-?written|half written": "incomplete",
    r"whole (?:checkpoints?|values?|feature maps?|files?|DICOM)": "complete",
    r"(?:is|are|be|there|read|written|not|touches) whole(?! (?:tumou?r|number|brain))": "complete",
    r"whole or not at all": "complete or not at all; atomically",
    r"beside(?!\.pth)": "next to, compared with, in addition to",
    r"peers?": "other tools",
    r"la(?:id|y|ying|ys) (?:\w+ )?over|lies? over": "merged on top of (configs), drawn on top of (pictures)",
    r"by hand": "manually",
    r"(?:n?ever|neither) (?:saw|sees?|seen)|(?:they|it) ha(?:ve|s) seen": "not used for training",
    r"trained n?or selected": "used for training or model selection",
    rf"(?:{PEOPLE}) (?:that |which )?(?:ha(?:ve|d) )?(?:neither )?(?:trained|selected|chose)": "used for training",
    r"cho(?:se|osing) (?:the (?:model|network|checkpoint|epoch)|it|them)": "used for model selection",
    r"(?:patients|cases) (?:to (?:train|choose|test)(?! on)|train|validate)": "for training, used for training",
    r"who (?:came in|is in|trained)": "which cases",
    r"whom": "which cases, which patients",
    r"meant so": "check that this is intended",
    r"marks no": "contains no",
    r"(?:is|are|was|were) not there": "is missing, does not exist",
    r"(?<!there\s)(?:is|are) no (?:file|NIfTI|DICOM|whole|checkpoint|scan|image|list|number|\w+\.csv)": "is not a",
    r"(?:that|which|it|\w+\}?) ha(?:s|ve) not[.,;:]": "does not have",
    r"an edge of|edges? of (?:about|\d+|(?:a|the) (?:patients?|volume|voxel|patch|scan|case))": "side length",
    r"least (?:pieces?|regions?|sizes?|whole)": "minimum size of a piece, of a region",
    r"the least and the most": "minimum and maximum",
    r"part(?:ed|s) (?:them|by|the patients|anew)|parted": "split",
    r"anew": "again; recomputed",
    r"go(?:es|ing)? on (?:from|where)": "resumes, continues",
    r"stands? (?:in (?!for\b)|above|among|behind)": "is in, is above",
    r"lies? (?:in|below|here)": "is in",
    r"(?:counts?|voxels|trained|all|run|voxel) alike": "equally; with the same",
    r"last byte": "completely",
    r"reckon(?:s|ed|ing)?": "estimated",
    r"without a network": "offline, without internet",
    r"hand(?:s|ed) (?:in|it in)": "passes",
    r"(?:in|tak(?:es?|ing)) the place of": "instead of, replaces",
    r"so (?:named|stored)": "with this name, stored like this",
    r"the day that": "in case",
    r"inventions": "false positives",
    r"less (?:that of|our default|the first|the ending|what)": "minus, without",
    r"so many (?:minutes|mm³?|steps|voxels)": "this many, the given number of",
    r"from \d+ up": "0 or greater",
    r"by halves": "in part",
    r"hangs? on": "depends on",
    r"as (?:it|they) stands?": "unchanged",
    r"is of an?(?:other)? (?:network|training)": "belongs to another network",
    r"(?:step|case|epoch) at hand": "the current step",
}
GAP = r"""(?:\s|\#|"|'|[rf](?=["']))+"""
# Python 3.11 has an f-string as one token, later versions have its parts
FSTRING = ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")
SAID = {tokenize.COMMENT, tokenize.STRING} | {getattr(tokenize, name, tokenize.STRING) for name in FSTRING}
RULES = [
    (re.compile(rf"(?<![\w-])(?:{phrase.replace(' ', GAP)})(?!\w)", re.IGNORECASE), better)
    for phrase, better in PHRASES.items()
]


def prose(text: str, suffix: str) -> str:
    """The text with all characters of code blanked out by NUL, so that places stay the same."""
    if suffix == ".html":  # Jinja expressions
        return re.sub(r"\{[{%].*?[%}]\}", lambda found: re.sub(r"\S", "\0", found[0]), text)
    if suffix != ".py":
        return text
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    words = re.sub(r"\S", "\0", text)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in SAID:
            first, last = (starts[line - 1] + column for line, column in (token.start, token.end))
            said = text[first:last]
            if re.match(r"r?f", said, re.IGNORECASE):
                said = re.sub(r"\{[^{}]*\}", lambda found: "\0" * len(found[0]), said)
            words = words[:first] + said + words[last:]
    return words


def hits(text: str, suffix: str) -> Iterator[tuple[int, str, str]]:
    """Line, phrase and better phrase of each hit, in the order of the text."""
    words = prose(text, suffix)
    found = [(match.start(), match[0], better) for rule, better in RULES for match in rule.finditer(words)]
    for start, phrase, better in sorted(found):
        yield words.count("\n", 0, start) + 1, " ".join(re.sub(r"[#\"]", " ", phrase).split()), better


def report(*paths: str) -> list[str]:
    """`file:line: phrase -> better phrase` of all text files that git knows below the paths."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = []
    for name in sorted(set(listed.split("\0")) - SKIPPED - {""}):
        path = ROOT / name
        if path.suffix in TEXT and path.is_file():
            text = path.read_text(encoding="utf-8")
            if name == "CHANGELOG.md":  # earlier versions keep their words
                text = "\n## ".join(text.split("\n## ")[:2])
            lines += [f"{name}:{line}: {phrase} -> {better}" for line, phrase, better in hits(text, path.suffix)]
    return lines


def test_no_phrase_of_the_list_is_in_the_repository():
    assert not report("."), "\n" + "\n".join(report("."))


@pytest.mark.parametrize(
    ("old", "plain"),
    [
        ("a row a case, one a patient, a case a core", "one row per case, one per patient, one case per core"),
        ("the mend, mend it", "the fix, how to fix it"),
        ("the patients trained the network, ten patients train", "patients used for training, trained on ten patients"),
        ("what is told, told of, says of each case", "reported, the message, lists each case"),
        ("a whole checkpoint", "a complete checkpoint"),
        ("half-written", "incomplete"),
        ("beside its peers", "compared with other tools"),
        ("laid over", "merged on top of"),
        ("lay it over a bundle", "merge it on top of a bundle"),
        ("by hand", "manually"),
        ("the network never saw them", "not used for training"),
        ("two others chose the checkpoint", "two others were used for model selection"),
        ("3 of 10 cases trained or selected the model", "3 of 10 cases were used for training or model selection"),
        ("marks no tumour", "contains no tumour"),
        ("see that it is meant so", "check that this is intended"),
        ("an edge of 96", "a side length of 96"),
        ("T1.nii is not there", "T1.nii is missing; there is no file T1.nii"),
        ("it is no NIfTI file", "it is not a NIfTI file"),
        ("a number from 0 up", "a number of 0 or greater"),
        ("B less that of A", "B minus A; less than A"),
    ],
)
def test_an_old_phrase_is_found_and_the_plain_one_is_not(old, plain):
    assert list(hits(old, ".md")) and not list(hits(plain, ".md"))


def test_code_is_passed_over_and_a_phrase_may_break_across_lines():
    code = 'told = f"{told} {peers}"\nfile, a, case = mend(beside)\n'
    assert list(hits(code, ".py")) == []
    comment = "x = 1  # one row a\n# case\n"
    message = 'raise ValueError(\n    "see that it is meant "\n    f"so {x}"\n)\n'
    assert [line for line, _, _ in hits(code + comment, ".py")] == [3]
    assert [(line, phrase) for line, phrase, _ in hits(message, ".py")] == [(2, "meant f so")]
    assert list(hits("<p>{{ told }} {% for told in peers %}</p>", ".html")) == []
