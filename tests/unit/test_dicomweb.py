"""URLs, access and answers of DICOMweb, without a store."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privdiff_infer.dicom.web import WebInstance, find_instances, store_url
from privdiff_infer.dicom.web_session import Access
from privdiff_infer.errors import OptionError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/dicom-web", "https://host/dicom-web"),
        ("dicomweb+http://Host:8042/dicom-web/", "http://host:8042/dicom-web"),
        ("http://[::1]:8042//a//rs", "http://[::1]:8042/a/rs"),
        ("https://host", "https://host"),
    ],
)
def test_the_url_of_a_service_has_one_spelling(url: str, expected: str) -> None:
    assert store_url(url) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("dicomweb+ftp://host/rs?Modality=DX", "no URL of a DICOMweb service"),
        ("dicomweb+https:///rs?Modality=DX", "no URL of a DICOMweb service"),
        ("dicomweb+https://host:99999/rs?Modality=DX", "no URL of a DICOMweb service"),
        ("dicomweb+https://host/rs?Modality=DX#s3cret", "no URL of a DICOMweb service"),
        ("dicomweb+https://jane:s3cret@host/rs?Modality=DX", "a user name or a password"),
        ("dicomweb+https://s3cret@host/rs?Modality=DX", "a user name or a password"),
        ("dicomweb+https://host/rs?access_token=s3cret", "no DICOM attribute"),
        ("dicomweb+https://host/rs?s3cret=1", "no DICOM attribute"),
        ("dicomweb+https://host/rs", "the URL has no query"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_quoting_it(url: str, problem: str) -> None:
    with pytest.raises(OptionError, match=problem) as caught:
        find_instances(url)

    assert "s3cret" not in repr(caught.value)


def test_a_target_has_no_query() -> None:
    with pytest.raises(OptionError, match="the URL of a target has a query"):
        store_url("https://host/rs?Modality=DX")


def test_an_instance_travels_and_shows_nothing() -> None:
    instance = WebInstance("https://host/rs", "1.2", "1.2.3", "1.2.3.4")

    assert pickle.loads(pickle.dumps(instance)) == instance
    assert "1.2" not in repr(instance)
    assert str(instance) == "dicomweb+https://host/rs/studies/1.2/series/1.2.3/instances/1.2.3.4"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"TOKEN": "s3cret", "USER": "jane"}, "both .* are set"),
        ({"USER": "s3cret"}, "belong together"),
        ({"PASSWORD": "s3cret"}, "belong together"),
        ({"TOKEN": "s3cret\r\nX: y"}, "characters that no token has"),
        ({"CA": "/nowhere.pem"}, "names /nowhere.pem, which is no file"),
        ({"CLIENT_KEY": __file__}, "is set alone"),
        ({"TIMEOUT": "0"}, "TIMEOUT is '0'"),
        ({"TIMEOUT": "nan"}, "TIMEOUT is 'nan'"),
    ],
)
def test_variables_that_make_no_sense(variables: dict[str, str], problem: str) -> None:
    environment = {f"PRIVDIFF_DICOMWEB_{name}": value for name, value in variables.items()}

    with pytest.raises(OptionError, match=problem) as caught:
        Access.from_environment(environment)

    assert "s3cret" not in repr(caught.value)


def test_access_shows_nothing() -> None:
    environment = {"PRIVDIFF_DICOMWEB_USER": "jane", "PRIVDIFF_DICOMWEB_PASSWORD": "s3cret"}

    assert repr(Access.from_environment(environment)) == "Access(<secret>)"


def test_an_empty_variable_is_none() -> None:
    assert Access.from_environment({"PRIVDIFF_DICOMWEB_TOKEN": ""}).auth is None


@given(st.text())
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        store_url(text)
    except OptionError:
        pass
