"""Scores a submission.json as the ARC Prize does, with nothing but lists.

python tests/scorer.py submission.json challenges.json solutions.json
"""

import json
import sys

ATTEMPTS = ("attempt_1", "attempt_2")


def score(submission, challenges, solutions):
  """The mean over tasks of the share of test inputs that an attempt solves."""
  if submission.keys() != challenges.keys():
    missing = sorted(challenges.keys() ^ submission.keys())
    raise ValueError(f"missing or unknown tasks: {', '.join(missing)}")
  total = 0.0
  for name, task in challenges.items():
    entries, answers = submission[name], solutions[name]
    if not len(entries) == len(answers) == len(task["test"]):
      raise ValueError(
        f"{name}: {len(entries)} entries and {len(answers)} solutions for"
        f" {len(task['test'])} test inputs"
      )
    right = 0
    for entry, answer in zip(entries, answers, strict=True):
      if set(entry) != set(ATTEMPTS):
        raise ValueError(f"{name}: an entry has {sorted(entry)}")
      right += any(entry[attempt] == answer for attempt in ATTEMPTS)
    total += right / len(answers)
  return total / len(challenges)


def main(paths):
  files = []
  for path in paths:
    with open(path) as file:
      files.append(json.load(file))
  print(score(*files))


if __name__ == "__main__":
  main(sys.argv[1:])
