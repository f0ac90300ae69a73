"""Tests: what napctl promises."""
