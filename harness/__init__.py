"""The netpoll harness: scenario -> plan -> run -> judge -> report. Start reading at harness/run.py."""
