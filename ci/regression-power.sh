#!/bin/sh
# Is the comparison of revisions to be trusted? In a clone of the repository
# ci/testdata/slowdown.patch makes a revision that is 10 % slower, which must be
# caught, and the unchanged revision must pass beside itself.
#
#	ci/regression-power.sh PLANTED UNCHANGED    how often each
set -eu
top=$(git rev-parse --show-toplevel)
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
trap 'exit 130' INT TERM
git clone -q --shared "$top" "$clone"
cd "$clone"
git apply ci/testdata/slowdown.patch
git -c user.name=ci -c user.email=ci@localhost commit -qam 'a planted slowdown'

# compare REFS TIMES CODE WORDS prints the line on CPU of each comparison, and how
# many ended with this code.
compare() {
	right=0
	for _ in $(seq "$2"); do
		code=0
		"$top/bin/phasegate" compare --refs "$1" --out "$clone/out" >text 2>errors || code=$?
		if [ $code -gt 1 ]; then cat text errors; exit $code; fi
		grep ^cpu_per_request text
		if [ $code -eq "$3" ]; then right=$((right + 1)); fi
	done
	echo "$4 $right of $2"
	if [ $right -lt "$2" ]; then wrong=1; fi
}
wrong=0
compare HEAD~1,HEAD "$1" 1 'planted 10 %: caught'
compare HEAD~1,HEAD~1 "$2" 0 'unchanged: passed'
exit $wrong
