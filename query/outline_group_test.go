package query

import (
	"fmt"
	"strings"
	"testing"
)

// TestDistinctArguments takes aggregates with DISTINCT apart: which of them are about the same values, and what these are.
func TestDistinctArguments(t *testing.T) {
	for _, test := range []struct{ list, want string }{
		{"count(DISTINCT x)", "x column | 0"},
		{"count(ALL x), sum(x)", " | - -"},
		{"count(DISTINCT x), sum(distinct t.x), avg(DISTINCT y)", "x column, y column | 0 0 1"},
		{"count(DISTINCT lower(x)), max(x), count(DISTINCT lower( x )), count(DISTINCT upper(x))", "lower(x), upper(x) | 0 - 0 1"},
		{"count(DISTINCT x + $1) FILTER (WHERE y > 1), count(DISTINCT x + $2)", "x + $1, x + $2 | 0 1"},
		{"count(DISTINCT (x, y)), count(DISTINCT row(x)), count(DISTINCT t.*)", " | none none none"},
		{"count(DISTINCT 1), count(DISTINCT 'a'), count(DISTINCT NULL), count(DISTINCT $1)", " | none none none none"},
		{"string_agg(DISTINCT x, ','), count(DISTINCT x)", "x column | none 0"},
	} {
		sql := "SELECT " + test.list + " FROM t"
		o, ok := ReadOutline(sql, Options{}, func(string) (bool, bool) { return false, true })
		if !ok {
			t.Fatal(sql)
		}
		g, ok := o.TakeApart(func(n Name) bool {
			return strings.Contains("count sum avg max string_agg", n.Name)
		}, func(a, b *Column) bool { return a.Name == b.Name })
		if !ok {
			t.Fatal(sql)
		}
		var arguments, numbers []string
		for _, d := range g.Distinct {
			text := d.In(sql)
			if d.Column != nil {
				text += " column"
			}
			arguments = append(arguments, text)
		}
		for _, a := range g.Aggregates {
			switch {
			case strings.Contains(strings.ToLower(a.Args.In(sql)), "distinct") || strings.Contains(a.Args.In(sql), "ALL"):
				t.Errorf("%s: the arguments are %q", sql, a.Args.In(sql))
			case !a.Distinct:
				numbers = append(numbers, "-")
			case a.Argument < 0:
				numbers = append(numbers, "none")
			default:
				numbers = append(numbers, fmt.Sprint(a.Argument))
			}
		}
		if got := strings.Join(arguments, ", ") + " | " + strings.Join(numbers, " "); got != test.want {
			t.Errorf("%s: %s, should be %s", sql, got, test.want)
		}
	}
}
