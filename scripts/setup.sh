#!/usr/bin/env bash
# Installs what the machine lacks: Go stays the user's business, PostgreSQL's
# server comes from the distribution, the sample scan from Debian's package
# mricron-data; Node builds the pages, Chromium and poppler test pages and
# reports; Orthanc with its plug-ins and dcm2niix take DICOM in; Python's
# scikit-learn and pandas fit the models' coefficients.
# Usage: scripts/setup.sh [postgres] [sample] [node] [browser] [pdf] [orthanc] [fit]
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "setup: $*"; exit 1; }

# as_root runs a command as root, or says how to.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo -n -- "$@"
	else
		die "this needs root once; run: sudo $*"
	fi
}

updated=
apt() {
	command -v apt-get >/dev/null || die "no apt-get here; install $* by your distribution's means and try again"
	if [ -z "$updated" ]; then
		say "setup: refreshing the package lists"
		as_root apt-get -qq update >&2
		updated=1
	fi
	say "setup: installing $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

command -v go >/dev/null || die "Go is missing; install Go $(sed -n 's/^go //p' go.mod) or newer and put it on the PATH"

install_postgres() {
	if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
		return
	fi
	# Debian would otherwise start a cluster of its own on port 5432.
	as_root mkdir -p /etc/postgresql-common
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		as_root sh -c 'echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf'
	elif ! grep -q '^ *create_main_cluster *= *false' /etc/postgresql-common/createcluster.conf; then
		as_root sh -c 'echo "create_main_cluster = false" >> /etc/postgresql-common/createcluster.conf'
	fi
	apt postgresql
}

install_sample() {
	[ -e /usr/share/mricron/templates/ch2.nii.gz ] || apt mricron-data
}

install_node() {
	# The distribution's, unless a newer one is there already.
	command -v npm >/dev/null && command -v node >/dev/null || apt nodejs npm
}

install_browser() {
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || apt chromium fonts-dejavu-core
}

install_pdf() {
	command -v pdftotext >/dev/null || apt poppler-utils
}

install_orthanc() {
	if [ -x /usr/sbin/Orthanc ] && [ -e /usr/share/orthanc/plugins/libOrthancPython.so ] && [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] &&
		[ -e /usr/share/orthanc/plugins/libOrthancNeuro.so ] && command -v dcm2niix >/dev/null; then
		return
	fi
	local there=
	[ ! -x /usr/sbin/Orthanc ] || there=1
	apt orthanc orthanc-python orthanc-dicomweb orthanc-neuro dcm2niix
	# Debian starts it with an open configuration of its own.
	if [ -z "$there" ] && [ -d /run/systemd/system ]; then
		as_root systemctl disable --now orthanc >&2
	fi
}

install_fit() {
	/usr/bin/python3 -c 'import numpy, scipy, pandas, sklearn' 2>/dev/null || apt python3-sklearn python3-pandas
}

for part in "${@:-postgres}"; do
	case $part in
	postgres | sample | node | browser | pdf | orthanc | fit) "install_$part" ;;
	*) die "unknown part $part" ;;
	esac
done
