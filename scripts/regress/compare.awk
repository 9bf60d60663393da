# Compares the scores of a run with the expected ones.
#   awk -v side=direct|proxy -v whole=0|1 -f compare.awk expected.tsv run.tsv
# Prints what differs, then the score; exits 1 when something differs. A file
# expected to fail, or whose result "varies" with which connection is lent to
# whom, needs a reason.
BEGIN { FS = OFS = "\t"; column = side == "direct" ? 2 : 3 }
/^#/ { next }
FILENAME == ARGV[1] { want[$1] = $column; reason[$1] = $4; next }
{
	ran[$1] = 1
	total++
	if ($2 == "ok") ok++
	if (!($1 in want)) { print side ": " $1 " is new: " $2; bad = 1 }
	else if (want[$1] != "ok" && reason[$1] == "") {
		print side ": " $1 " is expected as " want[$1] " without a reason"
		bad = 1
	} else if (want[$1] != "varies" && want[$1] != $2) {
		print side ": " $1 " was " want[$1] (reason[$1] == "" ? "" : " (" reason[$1] ")") ", is " $2
		bad = 1
	}
}
END {
	if (whole) for (f in want) if (!(f in ran)) { print side ": " f " did not run"; bad = 1 }
	printf "%s: %d of %d files ok\n", side, ok, total
	exit bad
}
