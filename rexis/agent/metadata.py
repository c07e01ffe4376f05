"""Croissant 1.1 metadata of a data set that stays where it is: names and types of its fields, its terms of use, no value.

Two properties differ from a data set that can be downloaded. The file object has no digest, because an unsalted hash of a guessable table
would let anyone test guesses (`isLiveDataset` is what makes it optional); the salted content root on chain takes its place. And the number
of rows is given with one significant digit. The documents carry no floats; their hash is SHA-256 over the canonical JSON (wire formats,
section 0). Source: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

from rexis.agent.profile import ColumnType, Profile
from rexis.encoding import canonical_json, sha256
from rexis.errors import EncodingError
from rexis.policy import DataUsePolicy

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
MAX_TITLE_CHARACTERS = 200
MAX_DESCRIPTION_CHARACTERS = 10_000
MAX_DOCUMENT_BYTES = 512 << 10

DATA_TYPES: dict[ColumnType, str] = {
    "boolean": "sc:Boolean",
    "integer": "sc:Integer",
    "decimal": "sc:Float",
    "date": "sc:Date",
    "text": "sc:Text",
    "empty": "sc:Text",
}

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass(frozen=True)
class Description:
    """What the owner says about the data set; all of it becomes public.

    Attributes:
        title: one line.
        text: a paragraph; what the data are and how they came about.
        creator: the institution; None leaves it to the owner's address on chain.
        license: URL of the licence that holds beside the policy, if there is one.
        citation: how to cite the data set.
        published: date of the metadata.
    """

    title: str
    text: str
    published: date
    creator: str | None = None
    license: str | None = None
    citation: str | None = None


def croissant(description: Description, profile: Profile, policy: DataUsePolicy) -> dict[str, Any]:
    """The Croissant document.

    Raises:
        EncodingError: title, description or the whole document is longer than admitted, or the title is empty.
    """
    if not 0 < len(description.title) <= MAX_TITLE_CHARACTERS:
        raise EncodingError(f"expected a title of 1 to {MAX_TITLE_CHARACTERS} characters, got {len(description.title)}")
    if len(description.text) > MAX_DESCRIPTION_CHARACTERS:
        raise EncodingError(f"expected a description of at most {MAX_DESCRIPTION_CHARACTERS} characters, got {len(description.text)}")
    document: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": description.title,
        "description": description.text or description.title,
        "datePublished": description.published.isoformat(),
        "version": "1.0.0",
        "isAccessibleForFree": False,
        "isLiveDataset": True,
        "conditionsOfAccess": "compute-to-data: queries travel to the data, rows do not leave the owner",
        "size": row_band(profile.rows),
        "usageInfo": data_use_terms(policy),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "table",
                "name": "table",
                "description": "kept by the owner; not for download",
                "contentUrl": "urn:rexis:kept-by-owner",
                "encodingFormat": "text/csv",
            }
        ],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": [_field(c.name, c.type) for c in profile.columns]}],
    }
    if description.creator:
        document["creator"] = {"@type": "sc:Organization", "name": description.creator}
    if description.license:
        document["license"] = description.license
    if description.citation:
        document["citeAs"] = description.citation
    size = len(canonical_json(document))
    if size > MAX_DOCUMENT_BYTES:
        raise EncodingError(f"expected metadata of at most {MAX_DOCUMENT_BYTES} bytes, got {size}; shorten the description")
    return document


def data_use_terms(policy: DataUsePolicy) -> list[dict[str, Any]]:
    """The policy's DUO terms as schema.org defined terms; their parameters are in the policy document."""
    return [
        {
            "@type": "sc:DefinedTerm",
            "inDefinedTermSet": "http://purl.obolibrary.org/obo/duo.owl",
            "name": code.value[1],
            "termCode": f"DUO:{code.number:07d}",
            "url": f"http://purl.obolibrary.org/obo/DUO_{code.number:07d}",
        }
        for code in (policy.permission, *policy.modifiers)
    ]


def row_band(rows: int) -> str:
    """The number of rows as the public may know it: rounded down to one significant digit, nothing below ten."""
    if rows < 10:
        return "fewer than 10 rows"
    step = 10 ** (len(str(rows)) - 1)
    return f"at least {rows // step * step} rows"


def document_hash(document: dict[str, Any]) -> bytes:
    """The 32 bytes that stand on chain for a metadata or policy document: SHA-256 of its canonical JSON."""
    return sha256(canonical_json(document))


def _field(name: str, kind: ColumnType) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"rows/{name}",
        "name": name,
        "dataType": DATA_TYPES[kind],
        "source": {"fileObject": {"@id": "table"}, "extract": {"column": name}},
    }
