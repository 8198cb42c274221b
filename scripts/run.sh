#!/usr/bin/env bash
# make run: sets the machine up, builds, starts the service on its embedded
# default, analyses samples, prints their results, and keeps serving.
# Usage: scripts/run.sh [SCAN AGE SEX]
set -euo pipefail
cd "$(dirname "$0")/.."

scan=${1:-} age=${2:-} sex=${3:-}
listen=${NEUROSCREEN_LISTEN:-127.0.0.1:8080}
if [ "$(id -u)" = 0 ]; then
	data=${NEUROSCREEN_DATA:-/var/lib/neuroscreen}
else
	data=${NEUROSCREEN_DATA:-${XDG_DATA_HOME:-$HOME/.local/share}/neuroscreen}
fi
export NEUROSCREEN_LISTEN=$listen NEUROSCREEN_DATA=$data

say() { printf '%s\n' "$*" >&2; }
die() { say "run: $*"; exit 1; }

if [ -n "$scan" ]; then
	[ -r "$scan" ] || die "cannot read $scan"
	[ -n "$age" ] && [ -n "$sex" ] || die "the age and sex decide what a scan is compared with: make run SCAN=$scan AGE=71 SEX=F"
	scripts/setup.sh postgres
else
	scripts/setup.sh postgres sample
fi

say "run: building (the first time downloads the libraries)"
make -s build

log=$(mktemp -t neuroscreen-server.XXXXXX)
say "run: starting the service; its log is $log"
# In a session of its own: Ctrl-C reaches this script alone, which then stops
# the service once. A second signal would make it drop everything.
setsid bin/neuroscreen-server >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
missing=0 # scans that ended without a result; the exit status tells
trap 'exit $((missing ? 1 : 130))' INT
trap 'exit $((missing ? 1 : 143))' TERM

# Another service on the address may answer too: ours says in its log that it
# has the address.
ready() { grep -q ' serves at ' "$log" && bin/neuroscreen ready --server "http://$listen" 2>/dev/null; }
for ((i = 0; i < 600; i++)); do
	if ! kill -0 "$server" 2>/dev/null; then
		tail -n 20 "$log" >&2
		die "the service stopped; the lines above say why. Is another one running on $listen? NEUROSCREEN_LISTEN=127.0.0.1:8090 make run takes another port"
	fi
	ready && break
	sleep 0.1
done
ready && kill -0 "$server" 2>/dev/null || die "the service did not become ready within a minute; see $log"
[ -r "$data/admin.key" ] || die "$data/admin.key is not there; NEUROSCREEN_DATA=$data bin/neuroscreen-server --new-admin-key makes it again"

submit() {
	if ! bin/neuroscreen submit --server "http://$listen" --key-file "$data/admin.key" --wait "$@"; then
		say "run: no result for this scan; the reason stands above"
		missing=$((missing + 1))
	fi
}
if [ -n "$scan" ]; then
	say "run: analysing $scan"
	submit "$scan" --subject "$(basename "$scan")" --age "$age" --sex "$sex"
else
	# Colin27: the average of 27 scans of one healthy man, here taken as 34. It was
	# brought to the size of MNI's template, so it is measured and not scored.
	say "run: analysing Colin27 (healthy man; age taken as 34; in MNI space, so without scores)"
	submit /usr/share/mricron/templates/ch2.nii.gz --subject sample-colin27 --age 34 --sex M
	say "run: analysing a synthetic head, made atrophied by this project's generator (as a woman of 74)"
	submit testdata/heads/atrophied_74F.nii.gz --subject synthetic-atrophied --age 74 --sex F
fi

cat <<END

The worklist            http://$listen      (sign in with the admin key; the contract: http://$listen/docs)
The same as JSON        curl -H "Authorization: Bearer \$(cat $data/admin.key)" http://$listen/v1/cases
The admin key           $(cat "$data/admin.key")
Data folder             $data
Log                     $log

Research use: results are for review by a qualified physician together with the source images.
Press Ctrl-C to stop.
END
[ "$missing" = 0 ] || say "run: $missing of the scans ended WITHOUT A RESULT; the reasons stand above"
wait "$server"
exit $((missing ? 1 : 0))
