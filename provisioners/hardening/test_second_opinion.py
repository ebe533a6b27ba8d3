"""What others than Lynis find: dpkg's own sums at each bake; debsums and OpenSCAP where asked for.

Like Lynis they are fetched, unpacked, run and removed. OpenSCAP judges by what Debian has for
Debian 12: its test of the version is made to take 13, in a copy, and nothing else is changed.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

Facts = dict[str, Any]
Record = Callable[[str, object], None]

# What an image may leave out of packages, as `path-exclude` of dpkg has it.
LEFT_OUT = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/")
# How many rules of the profile pass, of 100 that apply. See "OpenSCAP" in README.md.
PROFILE, FLOOR = "anssi_bp28_high", 50
UNPACKED = """
set -euo pipefail
at=$(mktemp -d /var/tmp/opinion.XXXXXX)
trap 'rm -rf "$at"' EXIT
cd "$at"
fresh=$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -cmin -360 -print -quit)
[ -n "$fresh" ] || apt-get -qq -o DPkg::Lock::Timeout=300 update
unpack() {
    apt-get -qq download $(
        apt-get install --simulate --no-install-recommends "$@" | awk '/^Inst/ {print $2}'
    ) 2>/dev/null
    for package in *.deb; do dpkg --extract "$package" .; done
}
"""
DEBSUMS = """
unpack debsums
perl=usr/share/perl5:$(find usr/share/perl usr/lib/*/perl usr/lib/*/perl5 -mindepth 1 -maxdepth 1 |
    paste -s -d :)
PERL5LIB=$perl perl usr/bin/debsums --changed || [ "$?" -eq 2 ]
"""
OPENSCAP = """
unpack openscap-scanner ssg-debian
export LD_LIBRARY_PATH=$(ls -d "$at"/usr/lib/*-linux-gnu)
export OSCAP_SCHEMA_PATH=$at/usr/share/openscap/schemas OSCAP_XSLT_PATH=$at/usr/share/openscap/xsl
content=usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml
sed 's/\\^12\\.\\[0-9\\]+\\$/^13.[0-9]+$/' "$content" >ds.xml
profile=xccdf_org.ssgproject.content_profile_$1
usr/bin/oscap xccdf eval --profile "$profile" ds.xml >said 2>errors || [ "$?" -eq 2 ] || {
    tail -n 20 errors >&2
    exit 1
}
usr/bin/oscap --version | head -n 1
dpkg-deb --field ssg-debian_*.deb Version
awk '/^Rule/ {rule = $2} /^Result/ {print rule, $2}' said
"""


def test_no_file_of_a_package_has_changed_but_settings(
    host: Host, facts: Facts, record_property: Record
) -> None:
    if not facts.get("on_builder"):
        pytest.skip("the builder was judged")
    # A line a file that differs or is missing, with a `c` for a setting, which is there to be set.
    told = [line.split() for line in host.check_output("dpkg --verify").splitlines()]
    record_property("settings.changed", " ".join(line[-1] for line in told if "c" in line[1:-1]))
    others = [line for line in told if "c" not in line[1:-1]]
    left_out = [one for one in others if one[0] == "missing" and one[-1].startswith(LEFT_OUT)]
    assert [line for line in others if line not in left_out] == []


def asked(facts: Facts) -> None:
    if not facts["parameters"]["second_opinion"]:
        pytest.skip("the recipe does not ask for it")


def test_debsums_says_the_same(host: Host, facts: Facts) -> None:
    asked(facts)
    if not facts.get("on_builder"):
        pytest.skip("the builder was judged")
    told = host.run("bash -c %s", UNPACKED + DEBSUMS)
    assert told.rc == 0, told.stderr
    assert told.stdout == ""


@pytest.mark.last
def test_openscap_passes_half_of_what_applies(
    host: Host, facts: Facts, own_kernel: None, record_property: Record
) -> None:
    asked(facts)
    if facts.get("on_builder"):
        pytest.skip("it judges the fresh boot")
    ran = host.run("bash -c %s openscap %s", UNPACKED + OPENSCAP, PROFILE)
    assert ran.rc == 0, ran.stderr
    scanner, content, *lines = ran.stdout.splitlines()
    results = dict(line.split() for line in lines)
    counted = Counter(results.values())
    record_property("openscap.version", scanner.split()[-1])
    record_property("openscap.content", content)
    record_property("openscap.profile", PROFILE)
    told = " ".join(f"{how}={count}" for how, count in sorted(counted.items()))
    record_property("openscap.results", told)
    failed = sorted(rule.rpartition("_rule_")[2] for rule, how in results.items() if how == "fail")
    record_property("openscap.open", " ".join(failed))
    assert counted["pass"] + counted["fail"] > 200, counted
    assert 100 * counted["pass"] / (counted["pass"] + counted["fail"]) >= FLOOR, failed
