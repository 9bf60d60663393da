package shardmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestSlots(t *testing.T) {
	for n := 1; n <= MaxSlots; n *= 2 {
		if err := CheckSlots(n); err != nil {
			t.Error(err)
		}
		if got := SlotOf(1<<64-1, n); int(got) != n-1 {
			t.Errorf("last of %d: %d", n, got)
		}
		if got := SlotOf(uint64(n), n); got != 0 {
			t.Errorf("%d of %d: %d", n, n, got)
		}
	}
	for _, n := range []int{-1, 0, 3, 4095, MaxSlots * 2} {
		if CheckSlots(n) == nil {
			t.Errorf("%d slots accepted", n)
		}
	}
	if CheckSlots(DefaultSlots) != nil {
		t.Error("the default is refused")
	}
}

// rowsOf makes rows from owners by slot.
func rowsOf(owners ...string) []Row {
	var rows []Row
	for s, o := range owners {
		rows = append(rows, Row{Slot: int64(s), Shard: o})
	}
	return rows
}

func mustMap(t *testing.T, epoch int64, shards []string, rows []Row) *Map {
	t.Helper()
	m, err := NewMap(epoch, len(rows), shards, rows)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMap(t *testing.T) {
	rows := rowsOf("b", "a", "b", "b")
	slices.Reverse(rows)
	given := []string{"a", "b", "empty"}
	m := mustMap(t, 7, given, rows)
	given[0] = "changed"
	if m.Epoch() != 7 || m.Slots() != 4 || !slices.Equal(m.Shards(), []string{"a", "b", "empty"}) {
		t.Errorf("%+v", m)
	}
	if m.Owner(0) != "b" || m.Owner(1) != "a" || m.OwnerIndex(0) != 1 || m.SlotOf(5) != 1 {
		t.Errorf("owners: %+v", m)
	}
	if got := m.SlotsOf("b"); !slices.Equal(got, []Slot{0, 2, 3}) {
		t.Errorf("slots of b: %d", got)
	}
	if m.SlotsOf("empty") != nil || m.SlotsOf("nobody") != nil {
		t.Error("slots of shards that own none")
	}
	if got := m.Counts(); !slices.Equal(got, []int{1, 3, 0}) {
		t.Errorf("counts: %d", got)
	}
	if again := mustMap(t, 7, m.Shards(), m.Rows()); !again.Equal(m) {
		t.Error("rows do not give the map back")
	}
	m.Shards()[0] = "changed"
	if m.Owner(1) != "a" {
		t.Error("a map has changed")
	}
}

// TestMapProblems expects all problems, and only them.
func TestMapProblems(t *testing.T) {
	shards := []string{"a", "b"}
	for _, test := range []struct {
		n      int
		shards []string
		rows   []Row
		want   []string
	}{
		{4, shards, rowsOf("a", "b", "a", "b"), nil},
		{4, shards, rowsOf("a", "b", "a"), []string{"slot 3 without an owner"}},
		{8, shards, rowsOf("a", "b"), []string{"slots 2-7 (6 slots) without an owner"}},
		{2, shards, append(rowsOf("a", "b"), Row{Slot: 1, Shard: "b"}), []string{"slot 1 stored more than once"}},
		{2, shards, rowsOf("a", "c"), []string{`slot 1 owned by "c", which is no shard`}},
		{2, shards, append(rowsOf("a", "b"), Row{Slot: 2, Shard: "a"}, Row{Slot: -1, Shard: "a"}), []string{"slots -1, 2 (2 slots) out of bounds: the slots are 0 to 1"}},
		{4, []string{"a", "a", ""}, append(rowsOf("z", "a", "", "y"), Row{Slot: 0, Shard: "z"}, Row{Slot: 9, Shard: "a"}), []string{
			`shard "a" is named twice`, "a shard has no name", "slot 0 stored more than once", "slot 9 out of bounds: the slots are 0 to 3",
			`slot 3 owned by "y", which is no shard`, `slot 0 owned by "z", which is no shard`}},
		{4, nil, nil, []string{"no shards", "slots 0-3 (4 slots) without an owner"}},
		{3, shards, rowsOf("a", "b", "a"), []string{"3 slots: want a power of two from 1 to 65536"}},
	} {
		m, err := NewMap(1, test.n, test.shards, test.rows)
		var problems []string
		if e := (*MapError)(nil); errors.As(err, &e) {
			problems = e.Problems
		}
		if !slices.Equal(problems, test.want) || (m == nil) != (test.want != nil) {
			t.Errorf("%d %v %v:\n%q, want\n%q", test.n, test.shards, test.rows, problems, test.want)
		}
	}
	var many []Row
	for s := range 4096 {
		many = append(many, Row{Slot: int64(s), Shard: []string{"a", "lost"}[s%2]})
	}
	_, err := NewMap(1, 4096, shards, many)
	if err == nil || len(err.Error()) > 200 || !strings.Contains(err.Error(), "1, 3, 5") || !strings.Contains(err.Error(), "... (2048 slots)") {
		t.Errorf("a long list: %v", err)
	}
}

func TestDiff(t *testing.T) {
	a := mustMap(t, 1, []string{"a", "b"}, rowsOf("a", "a", "b", "b"))
	for _, test := range []struct {
		to    *Map
		want  string
		moved int
		same  bool
	}{
		{a, "", 0, true},
		{mustMap(t, 1, []string{"b", "a"}, rowsOf("a", "a", "b", "b")), "", 0, true},
		{mustMap(t, 2, []string{"a", "b"}, rowsOf("a", "a", "b", "b")), "epoch 1 becomes 2", 0, true},
		{mustMap(t, 1, []string{"a", "b", "c"}, rowsOf("a", "a", "b", "b")), `shard "c" is new`, 0, false},
		{mustMap(t, 2, []string{"c", "a"}, rowsOf("c", "a", "c", "a")), `epoch 1 becomes 2; shard "c" is new; shard "b" is gone; slot 0 from "a" to "c"; slot 3 from "b" to "a"; slot 2 from "b" to "c"`, 3, false},
		{mustMap(t, 1, []string{"a", "b"}, rowsOf("b", "b", "a", "a")), `slots 0-1 (2 slots) from "a" to "b"; slots 2-3 (2 slots) from "b" to "a"`, 4, false},
		{mustMap(t, 1, []string{"b"}, rowsOf("b", "b", "b", "b")), `shard "a" is gone; slots 0-1 (2 slots) from "a" to "b"`, 2, false},
		{mustMap(t, 1, []string{"a", "b"}, rowsOf("a", "b")), "4 slots become 2", 0, false},
	} {
		d := a.Diff(test.to)
		if d.String() != test.want || d.Moved() != test.moved || a.Equal(test.to) != test.same {
			t.Errorf("%q, %d moved, equal %v; want %q, %d, %v", d, d.Moved(), a.Equal(test.to), test.want, test.moved, test.same)
		}
	}
}

// TestEqualNeedsTheShards shows that a shard without slots counts.
func TestEqualNeedsTheShards(t *testing.T) {
	less := mustMap(t, 1, []string{"a"}, rowsOf("a", "a"))
	more := mustMap(t, 1, []string{"a", "empty"}, rowsOf("a", "a"))
	if less.Equal(more) || more.Equal(less) || !more.Equal(more) {
		t.Error("a shard without slots makes no difference")
	}
}

// TestDiffIsWhole applies a diff's moves and gets the other map.
func TestDiffIsWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	names := []string{"a", "b", "c", "d"}
	randomMap := func() *Map {
		var owners []string
		for range 64 {
			owners = append(owners, names[random.IntN(4)])
		}
		return mustMap(t, 1, names, rowsOf(owners...))
	}
	for range 100 {
		from, to := randomMap(), randomMap()
		rows := from.Rows()
		for _, move := range from.Diff(to).Moves {
			for _, s := range move.Slots {
				if rows[s].Shard != move.From {
					t.Fatalf("%v", move)
				}
				rows[s].Shard = move.To
			}
		}
		if got := mustMap(t, 1, names, rows); !got.Equal(to) {
			t.Fatal(fmt.Sprint(got.Diff(to)))
		}
	}
}
