package queryset

import (
	"fmt"
	"slices"
	"strings"
)

// Difference says how the rows of an answer are not what they should be, "" when they
// are. Both have the columns of the query. What Order leaves open may differ: rows that
// are equal in its columns may come in any order, and, where rows are left out, those
// that are equal to the last may be others of its kind.
func (q Query) Difference(got, want [][]string) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d rows, should be %d", len(got), len(want))
	}
	for i := range want {
		if g, w := q.key(got[i]), q.key(want[i]); g != w {
			return fmt.Sprintf("row %d is of %s, should be of %s", i+1, g, w)
		}
	}
	open := ""
	if q.Limited && len(want) > 0 {
		open = q.key(want[len(want)-1])
	}
	g, w := q.sorted(got, open), q.sorted(want, open)
	for i := range w {
		if i >= len(g) || g[i] != w[i] {
			return fmt.Sprintf("row %d, sorted, is\n  %s\nshould be\n  %s", i+1, g[i], w[i])
		}
	}
	return ""
}

// key is what a row is ordered by.
func (q Query) key(row []string) string {
	var key []string
	for _, c := range q.Order {
		key = append(key, row[c])
	}
	return fmt.Sprintf("%q", key)
}

// sorted returns the rows as lines, those with the key open left out unless they are
// the only one of it: the key alone then does not say which they are.
func (q Query) sorted(rows [][]string, open string) (lines []string) {
	n := 0
	for _, row := range rows {
		if open != "" && q.key(row) == open {
			n++
		}
	}
	for _, row := range rows {
		if n < 2 || q.key(row) != open {
			lines = append(lines, strings.Join(row, " | "))
		}
	}
	slices.Sort(lines)
	return lines
}
