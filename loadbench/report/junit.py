"""A conclusion as JUnit XML: a test case for each check and each gated metric.

No verdict is a skipped test with its reason, a run that could not be made an error: neither is a
failure of what was tested. Characters that XML cannot hold are escaped.
"""

from xml.etree import ElementTree

from loadbench.printable import harmless
from loadbench.report.conclusion import Conclusion, Finding, facts
from loadbench.report.text import summary_text

_LONGEST = 100_000  # characters of the text that goes with it


def junit_xml(found: Conclusion) -> str:
    """The whole document."""
    known = facts(found)
    suite = ElementTree.Element("testsuite", name=_text(f"loadbench {found.scenario}"))
    if known:
        properties = ElementTree.SubElement(suite, "properties")
        for name in ("run", "target", "device", "trust"):
            value = _text(str(known[name]))
            ElementTree.SubElement(properties, "property", name=name, value=value)
    cases = [_case(suite, found, one) for one in found.findings]
    if found.state == "error" or not cases:
        cases.append(_made(suite, found))
    for name in ("failure", "error", "skipped"):
        number = sum(case.find(name) is not None for case in cases)
        suite.set({"failure": "failures", "error": "errors"}.get(name, name), str(number))
    suite.set("tests", str(len(cases)))
    suite.set("time", f"{known.get('seconds', 0):.3f}")
    pages = "\n\n".join(summary_text(summary) for summary in found.summaries)
    if pages:
        ElementTree.SubElement(suite, "system-out").text = _text(pages[:_LONGEST])
    root = ElementTree.Element("testsuites", name="loadbench")
    for name in ("tests", "failures", "errors", "skipped", "time"):
        root.set(name, suite.get(name, "0"))
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, found: Conclusion, finding: Finding) -> ElementTree.Element:
    case = ElementTree.SubElement(
        suite, "testcase", classname=_text(f"loadbench.{found.scenario}"), name=_text(finding.name)
    )
    said = _text(finding.text)
    if finding.state == "failed":
        kind = "check" if finding.about == "check" else "regression"
        ElementTree.SubElement(case, "failure", message=said, type=kind).text = said
    elif finding.state == "no verdict":
        missed = _text(found.missed) if finding.about == "comparison" else ""
        text = "; ".join(filter(None, (f"no verdict: {said}", missed)))
        ElementTree.SubElement(case, "skipped", message=text)
    return case


def _made(suite: ElementTree.Element, found: Conclusion) -> ElementTree.Element:
    """Whether there was a run at all: where that is what failed, or nothing else was asked."""
    classname = _text(f"loadbench.{found.scenario}")
    case = ElementTree.SubElement(suite, "testcase", classname=classname, name="run")
    said = _text(found.sentence)
    if found.state == "error":
        text = "\n".join(filter(None, (said, _text(found.hint))))
        kind = "different work" if found.comparison else "not made"
        ElementTree.SubElement(case, "error", message=said, type=kind).text = text
    elif found.state == "no verdict":
        ElementTree.SubElement(case, "skipped", message=f"no verdict: {said}")
    return case


def _text(text: str) -> str:
    return harmless(text)
