"""Names and settings of the DDS transport; no bus."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cvgl_ros.dds.domain import domain_id, domain_xml
from cvgl_ros.dds.names import check_namespace, parse_remaps, reply_topic, request_topic, resolve, topic_name
from cvgl_ros.parameters import ParameterError


@pytest.mark.parametrize(
    ("name", "namespace", "remaps", "expected"),
    [
        ("image", "/", {}, "rt/image"),
        ("image", "drone", {}, "rt/drone/image"),
        ("image", "/fleet/one/", {}, "rt/fleet/one/image"),
        ("image", "/", {"image": "camera/image_raw"}, "rt/camera/image_raw"),
        ("image", "/drone", {"image": "/camera/image_raw"}, "rt/camera/image_raw"),
        ("/diagnostics", "/drone", {}, "rt/diagnostics"),
        ("visual_localization/fix", "/", {}, "rt/visual_localization/fix"),
    ],
)
def test_topics(name: str, namespace: str, remaps: dict[str, str], expected: str) -> None:
    assert topic_name(resolve(name, namespace, remaps)) == expected


def test_services() -> None:
    assert request_topic("/a/trigger") == "rq/a/triggerRequest"
    assert reply_topic("/a/trigger") == "rr/a/triggerReply"


@pytest.mark.parametrize("rule", ["image", "image:=", ":=x", "image:=a b", "image:=1a", "im-age:=x", "image:=x/"])
def test_remappings_that_are_none(rule: str) -> None:
    with pytest.raises(ParameterError, match="not a remapping"):
        parse_remaps([rule])


@pytest.mark.parametrize(
    ("namespace", "good"), [("/", True), ("", True), ("drone", True), ("/a/b/", True), ("a b", False)]
)
def test_namespaces(namespace: str, good: bool) -> None:
    if good:
        assert check_namespace(namespace) == namespace
    else:
        with pytest.raises(ParameterError, match="not a namespace"):
            check_namespace(namespace)


def test_remappings() -> None:
    assert parse_remaps(["image:=/camera/image_raw", "imu:=imu/data"]) == {
        "image": "/camera/image_raw",
        "imu": "imu/data",
    }


def interfaces(xml: str) -> list[dict[str, str]]:
    return [element.attrib for element in ElementTree.fromstring(xml).iter("NetworkInterface")]


def test_without_a_word_the_bus_stays_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CYCLONEDDS_URI", raising=False)
    assert interfaces(domain_xml()) == [{"name": "lo"}]


def test_named_interfaces_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLONEDDS_URI", "<other/>")
    found = interfaces(domain_xml(["eth0", "192.168.1.5", 'x"><evil/>']))
    assert found == [{"name": "eth0"}, {"address": "192.168.1.5"}, {"name": 'x"><evil/>'}]


def test_the_users_own_settings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLONEDDS_URI", "file:///etc/cyclonedds.xml")
    assert domain_xml() == "file:///etc/cyclonedds.xml"


@pytest.mark.parametrize(("given", "environment", "expected"), [(5, "7", 5), (None, "7", 7), (None, "", 0)])
def test_domain(monkeypatch: pytest.MonkeyPatch, given: int | None, environment: str, expected: int) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", environment)
    assert domain_id(given) == expected


@pytest.mark.parametrize(("given", "environment"), [(233, ""), (-1, ""), (None, "many")])
def test_domains_that_are_none(monkeypatch: pytest.MonkeyPatch, given: int | None, environment: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", environment)
    with pytest.raises(ParameterError, match="0 to 232"):
        domain_id(given)
