"""Landscapes rendered to files are those of their seeds, and what is there stays."""

from __future__ import annotations

from crispedit.pipelines.shipped.landscapes import main


def test_seeds_are_files(tmp_path):
    main([str(tmp_path / "a"), "--first", "3", "--count", "2", "--size", "64", "48"])
    assert [path.name for path in sorted((tmp_path / "a").iterdir())] == ["00003.jpg", "00004.jpg"]
    main([str(tmp_path / "b"), "--first", "4", "--count", "1", "--size", "64", "48"])
    second = (tmp_path / "a" / "00004.jpg").read_bytes()
    assert (tmp_path / "b" / "00004.jpg").read_bytes() == second
    assert (tmp_path / "a" / "00003.jpg").read_bytes() != second


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "00000.jpg").write_bytes(b"mine")
    main([str(tmp_path), "--count", "2", "--size", "64", "48"])
    assert (tmp_path / "00000.jpg").read_bytes() == b"mine"
    assert (tmp_path / "00001.jpg").stat().st_size > 100
