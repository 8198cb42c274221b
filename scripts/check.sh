#!/usr/bin/env bash
# Formatting, vet, machine paths, registries' hosts, the compose file: what a
# reviewer should not have to say.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	echo "not formatted; run gofmt -w on:" >&2
	echo "$unformatted" >&2
	exit 1
fi

# refuse PATTERN WHAT [PATHSPEC...] fails when a tracked text file matches.
refuse() {
	local pattern=$1 what=$2 found
	shift 2
	if found=$(git grep -nIE "$pattern" -- . "$@" | cut -c1-200); then
		echo "$what:" >&2
		echo "$found" >&2
		exit 1
	fi
}
refuse '(^|[^[:alnum:]_.~-])/(work|root|home)[/]' "a path of one machine"
refuse '(proxy|sum)\.golang\.org|registry\.(npmjs|yarnpkg)|pypi\.org|pythonhosted\.org|(deb|security|ftp)\.debian\.org' "a package registry's host" ':!go.sum'

# What the file refers to is checked by deploy/compose_test.go everywhere.
if docker compose version >/dev/null 2>&1; then
	docker compose -f deploy/compose.yaml config -q
fi
go vet ./...
