package metadata

import "testing"

// TestProgress: each phase is further than what comes before it, and no count
// of rows leads out of its phase.
func TestProgress(t *testing.T) {
	last := -1.0
	for _, m := range []Move{
		{Phase: MovePlanned}, {Phase: MoveCopying}, {Phase: MoveCopying, Rows: 10, Copied: 1}, {Phase: MoveCopying, Rows: 10, Copied: 9}, {Phase: MoveCopying, Rows: 10, Copied: 12},
		{Phase: MoveFollowing, Copied: 12}, {Phase: MoveReversing, Copied: 12}, {Phase: MovePurging, Copied: 12, Purged: 6}, {Phase: MoveDone},
	} {
		if p := m.Done(); p <= last || p > 1 {
			t.Errorf("%+v is %v far, after %v", m, p, last)
		} else {
			last = p
		}
	}
	for _, m := range []Move{{Phase: MoveAborting, Copied: 5}, {Phase: MoveAborted, Copied: 5}} {
		if m.Done() != 0 {
			t.Errorf("%s is %v far", m.Phase, m.Done())
		}
	}
}
