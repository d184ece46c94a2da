# The developer's commands; each is one script in tools/ or one module in bench/.
.PHONY: run test torture check fix bench bench-full

run:            ## set up a home in /tmp, start the tree, deliver two messages
	@tools/venv demo
	@.venv/bin/python tools/demo

test:           ## everything CI runs; installs the Debian packages tests need (root)
	@tools/testdeps
	@tools/check

torture:        ## kills, power cuts, and a long run, for hours; resumable (root): tests/torture
	@tools/venv
	@tools/testdeps
	@.venv/bin/python -m tests.torture

check:          ## format, lint, types, without the tests
	@tools/check --fast

fix:            ## let ruff mend what it can
	@tools/venv
	@.venv/bin/ruff check -q --fix . ; .venv/bin/ruff format -q .

bench:          ## beside Postfix and, with NOTQMAIL_HOME, notqmail; under ten minutes (root)
	@tools/venv bench
	@tools/testdeps
	@.venv/bin/python -m bench

bench-full:     ## all variants, three rounds, 35 minutes; writes bench/REPORT.md
	@tools/venv bench
	@tools/testdeps
	@.venv/bin/python -m bench --full --report
