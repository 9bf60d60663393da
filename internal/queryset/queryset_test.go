package queryset

import (
	"reflect"
	"testing"
	"testing/fstest"
)

func read(t *testing.T, text string) Query {
	t.Helper()
	all, err := Read(fstest.MapFS{"q/7.sql": {Data: []byte(text)}}, "q")
	if err != nil || len(all) != 1 || all[0].Name != "7" {
		t.Fatal(all, err)
	}
	return all[0]
}

func TestTexts(t *testing.T) {
	q := read(t, "-- A title\n-- order: 2 1\n-- limit\n-- more\nSELECT a, b FROM t\nWHERE a = {text O'Hara} AND b < {date 1995-03-15} + {interval 3 days} AND c IN ({int 3}, {num 0.5}, {int 3})\n")
	if q.Title != "A title" || !reflect.DeepEqual(q.Order, []int{1, 0}) || !q.Limited {
		t.Errorf("%+v", q)
	}
	if got := q.Constants(); got != "SELECT a, b FROM t\nWHERE a = 'O''Hara' AND b < date '1995-03-15' + interval '3 days' AND c IN (3, 0.5, 3)" {
		t.Error(got)
	}
	sql, args := q.Parameters()
	if sql != "SELECT a, b FROM t\nWHERE a = $1 AND b < $2::date + $3::interval AND c IN ($4, $5::numeric, $4)" ||
		!reflect.DeepEqual(args, []any{"O'Hara", "1995-03-15", "3 days", "3", "0.5"}) {
		t.Error(sql, args)
	}
	for _, bad := range []string{"SELECT {oid 3}", "SELECT {int", "SELECT {int}", "-- order: 0\nSELECT 1", "-- order: x\nSELECT 1"} {
		if _, err := Read(fstest.MapFS{"q/1.sql": {Data: []byte(bad)}}, "q"); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestDifference(t *testing.T) {
	rows := func(texts ...string) (all [][]string) {
		for _, t := range texts {
			all = append(all, []string{t[:1], t[1:]})
		}
		return all
	}
	free, ordered, limited := Query{}, Query{Order: []int{0}}, Query{Order: []int{0}, Limited: true}
	for _, test := range []struct {
		q         Query
		got, want [][]string
		same      bool
	}{
		{free, rows("b1", "a2"), rows("a2", "b1"), true},
		{free, rows("b1", "a2"), rows("a2", "b2"), false},
		{free, rows("b1"), rows("b1", "b1"), false},
		{free, rows("a1", "a1", "b1"), rows("a1", "b1", "b1"), false},
		{ordered, rows("b1", "a2"), rows("a2", "b1"), false},
		{ordered, rows("a1", "a2", "b1"), rows("a2", "a1", "b1"), true},
		{ordered, rows("a1", "b3", "b1"), rows("a1", "b1", "b2"), false},
		{limited, rows("a1", "b3", "b1"), rows("a1", "b1", "b2"), true},
		{limited, rows("a1", "b3"), rows("a1", "b2"), false},
		{limited, rows("a3", "b1", "b2"), rows("a1", "b1", "b2"), false},
		{limited, nil, nil, true},
	} {
		if why := test.q.Difference(test.got, test.want); (why == "") != test.same {
			t.Errorf("%v and %v: %q", test.got, test.want, why)
		}
	}
}
