# popper: make is the interface.
#
#   make demo       its own environment, a demo user and mailbox, popper on 127.0.0.1, PORT=1110, as whoever you are
#   make check      everything the tests need (apt packages too, for root), then the tests
#   make install    PREFIX=/usr/local DESTDIR= PYTHON=python3
#   make torture    kill an update at every system call it makes, and let every one fail: some minutes
#   make bench      ratios, measured here; PEERS=DIR adds other servers
#   make clean      what the others left

PYTHON = python3
PREFIX = /usr/local
DESTDIR =
BUILD = build
VENV = $(BUILD)/venv
APT = openbsd-inetd ucspi-tcp curl fetchmail mpop getmail6 mailutils s-nail nmap procmail logwatch fail2ban mandoc \
      strace liblockfile-bin man-db procps python3-venv dovecot-pop3d mutt faketime chromium e2fsprogs fuse libfuse2 \
      systemd tcpd logrotate

LIBDIR = $(PREFIX)/lib/popper
SBINDIR = $(PREFIX)/sbin
MANDIR = $(PREFIX)/share/man
SHARE = $(PREFIX)/share/popper
COMPLETIONS = $(PREFIX)/share/bash-completion/completions
# The manual and the samples name the places of this PREFIX.
PLACES = s|/usr/local/sbin|$(SBINDIR)|g; s|/usr/local/share/popper|$(SHARE)|g
NAMES = in.popper qpopper in.qpopper

all:
	@sed -n '2,10s/^# *//p' Makefile

demo: PORT = 1110
demo:
	@$(PYTHON) tests/demo.py $(BUILD)/demo $(PORT)

check: $(VENV)/ready packages
	$(VENV)/bin/python $(if $(TESTS),-m pytest $(TESTS),tests/check.py)

# The environment of the tests: popper as pip installs it, from this tree, and what the tests need.
$(VENV)/ready: setup.cfg | packages
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: python3-venv is missing: apt install it, as root" >&2; exit 1; }
	$(VENV)/bin/python -m pip install -q -e '.[report,test]'
	touch $@

# No daemon among them is to be started: the tests start their own, and Dovecot would take port 110.
packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=; for p in $(APT); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	  [ -z "$$missing" ] || { policy=/usr/sbin/policy-rc.d; [ -e $$policy ] || { trap "rm -f $$policy" EXIT; \
	    printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; }; apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }; fi

# The first line names the interpreter by its real path: inetd gives a PATH of its own. -I: nothing of the
# environment is believed. -S: no site-packages until a library is asked for (popper/library.py); popperctl, for which
# nobody waits on a connection, has them from the start.
install:
	install -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(SBINDIR) $(DESTDIR)$(MANDIR)/man8 $(DESTDIR)$(MANDIR)/man5 \
	  $(DESTDIR)$(SHARE)/bulletins $(DESTDIR)$(SHARE)/etc
	for d in popper popper/admin popper/auth popper/storage; do \
	  install -d $(DESTDIR)$(LIBDIR)/$$d; install -m 644 $$d/*.py $(DESTDIR)$(LIBDIR)/$$d; done
	python=$$($(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer"; print(sys.executable)') && \
	  $$python -m compileall -q -f --invalidation-mode unchecked-hash -s '$(DESTDIR)' $(DESTDIR)$(LIBDIR)/popper && \
	  { echo "#!$$python -IS"; sed 's|^LIBRARY = None|LIBRARY = "$(LIBDIR)"|' popper/launch.py; } \
	    >$(DESTDIR)$(SBINDIR)/popper && \
	  { echo "#!$$python -I"; sed 's|^LIBRARY = None|LIBRARY = "$(LIBDIR)"|' popper/admin/__main__.py; } \
	    >$(DESTDIR)$(SBINDIR)/popperctl
	chmod 755 $(DESTDIR)$(SBINDIR)/popper $(DESTDIR)$(SBINDIR)/popperctl
	for n in $(NAMES); do ln -sf popper $(DESTDIR)$(SBINDIR)/$$n; done
	for n in 5 8; do for f in man/*.$$n; do \
	  sed '$(PLACES)' $$f >$(DESTDIR)$(MANDIR)/man$$n/$${f##*/}; chmod 644 $(DESTDIR)$(MANDIR)/man$$n/$${f##*/}; done; done
	install -m 644 bulletins/* $(DESTDIR)$(SHARE)/bulletins
	cp -R etc/. $(DESTDIR)$(SHARE)/etc
	install -d $(DESTDIR)$(COMPLETIONS)
	install -m 644 etc/bash-completion/popperctl $(DESTDIR)$(COMPLETIONS)/popperctl
	find $(DESTDIR)$(SHARE)/etc -type f -exec sed -i '$(PLACES)' {} +
	@echo "installed $(SBINDIR)/popper, run by $$(sed -n '1s/^#!//p' $(DESTDIR)$(SBINDIR)/popper)"
	@python=$$(sed -n '1s/^#!\(.*\) -I$$/\1/p' $(DESTDIR)$(SBINDIR)/popperctl); $$python -I -c 'import docopt' 2>/dev/null || \
	  echo "popperctl needs docopt: apt install python3-docopt, or $$python -m pip install docopt-ng"

torture: $(VENV)/ready packages
	$(VENV)/bin/python -m pytest -s tests/torture

bench: $(VENV)/ready packages
	$(VENV)/bin/python tests/bench/run.py $(if $(PEERS),--peers $(PEERS))

clean:
	rm -rf $(BUILD)

.PHONY: all demo check torture packages install bench clean
