package rebalance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"shardproxy/metadata"
)

// TestMoverNext says which moves begin beside which others.
func TestMoverNext(t *testing.T) {
	slots := func(id int64, from, to string, phase metadata.MovePhase) *metadata.Move {
		return &metadata.Move{ID: id, Kind: metadata.MoveSlots, Source: from, Target: to, Phase: phase}
	}
	of := func(id int64, kind metadata.MoveKind, from, to string) *metadata.Move {
		return &metadata.Move{ID: id, Kind: kind, Source: from, Target: to, Phase: metadata.MovePlanned}
	}
	asked := slots(1, "a", "b", metadata.MoveReversing)
	asked.Wanted = metadata.WantRollback
	asked2 := slots(2, "b", "c", metadata.MoveReversing)
	asked2.Wanted = metadata.WantComplete
	const planned, reversing = metadata.MovePlanned, metadata.MoveReversing
	for _, test := range []struct {
		name   string
		moves  []*metadata.Move
		at     []int64
		failed []int64
		want   string
	}{
		{"two pairs at once", []*metadata.Move{slots(1, "a", "c", planned), slots(2, "b", "c", planned), slots(3, "a", "d", planned)}, nil, nil, "1 2"},
		{"one of a pair", []*metadata.Move{slots(1, "a", "c", planned), slots(2, "a", "c", planned), slots(3, "b", "c", planned)}, nil, nil, "1 3"},
		{"beside one that goes", []*metadata.Move{slots(1, "a", "c", metadata.MoveCopying), slots(2, "a", "c", planned), slots(3, "b", "c", planned)}, []int64{1}, nil, "3"},
		{"no third", []*metadata.Move{slots(1, "a", "c", metadata.MoveCopying), slots(2, "b", "c", metadata.MoveCopying), slots(3, "d", "c", planned)}, []int64{1, 2}, nil, ""},
		{"joins first, alone", []*metadata.Move{of(1, metadata.MoveJoin, "a", "c"), slots(2, "a", "c", planned)}, nil, nil, "1"},
		{"a join waits for what is before it", []*metadata.Move{slots(1, "a", "b", planned), of(2, metadata.MoveJoin, "a", "c"), slots(3, "b", "c", planned)}, nil, nil, "1"},
		{"behind a join that goes", []*metadata.Move{of(1, metadata.MoveJoin, "a", "c"), slots(2, "a", "c", planned)}, []int64{1}, nil, ""},
		{"a leave comes last", []*metadata.Move{slots(1, "b", "a", planned), of(2, metadata.MoveLeave, "b", "a")}, nil, nil, "1"},
		{"a leave", []*metadata.Move{of(2, metadata.MoveLeave, "b", "a")}, nil, nil, "2"},
		{"kept ones go beside all", []*metadata.Move{slots(1, "a", "b", reversing), slots(2, "a", "c", reversing), slots(3, "a", "b", planned), slots(4, "b", "c", planned), slots(5, "c", "b", planned)}, []int64{1}, nil, "2 3 4"},
		{"a leave waits for rows that are kept", []*metadata.Move{slots(1, "b", "a", reversing), of(2, metadata.MoveLeave, "b", "a")}, []int64{1}, nil, ""},
		{"a leave does not wait for those of others", []*metadata.Move{slots(1, "c", "a", reversing), of(2, metadata.MoveLeave, "b", "a")}, []int64{1}, nil, "2"},
		{"what is wanted takes a place", []*metadata.Move{asked, slots(2, "a", "c", planned), slots(3, "b", "c", planned)}, nil, nil, "1 2"},
		{"one that has flipped comes first", []*metadata.Move{slots(1, "a", "c", metadata.MovePurging), slots(2, "b", "c", metadata.MovePurging), slots(3, "a", "b", metadata.MoveFlipped)}, nil, nil, "3 1"},
		{"one that has flipped beside all others", []*metadata.Move{slots(1, "a", "c", metadata.MovePurging), slots(2, "b", "c", metadata.MovePurging), slots(3, "a", "b", metadata.MoveFlipped)}, []int64{1, 2}, nil, "3"},
		{"one that may hold writes comes first", []*metadata.Move{slots(1, "a", "c", metadata.MovePurging), slots(2, "b", "c", planned), slots(3, "a", "b", metadata.MoveFollowing)}, []int64{1}, nil, "3"},
		{"those behind count, too", []*metadata.Move{slots(1, "a", "c", metadata.MovePurging), asked2, slots(3, "a", "b", metadata.MoveCopying)}, []int64{1, 3}, nil, ""},
		{"a leave that goes is alone", []*metadata.Move{asked, of(2, metadata.MoveLeave, "c", "a")}, []int64{2}, nil, ""},
		{"one that failed keeps its place for a while", []*metadata.Move{slots(1, "a", "c", planned), slots(2, "a", "c", planned), slots(3, "b", "c", planned)}, nil, []int64{1}, "3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			at, failed := map[int64]*moverWork{}, map[int64]time.Time{}
			for _, id := range test.at {
				at[id] = &moverWork{}
			}
			for _, id := range test.failed {
				failed[id] = time.Now()
			}
			var begin []string
			for _, m := range NewMover(MoverOptions{}).next(test.moves, at, failed) {
				begin = append(begin, fmt.Sprint(m.ID))
			}
			if got := strings.Join(begin, " "); got != test.want {
				t.Errorf("begins %q, want %q", got, test.want)
			}
		})
	}
}
