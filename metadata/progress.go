package metadata

// Which parts of a move its phases are taken to be: copying is what takes long,
// and its rows are counted.
const (
	doneCopyFrom, doneCopyTo = 0.05, 0.75
	doneFollowed             = 0.85
	doneFlipped              = 0.9
)

// MoveProgress returns how far a move is, 0 to 1, by its phase and its rows:
// those that it carries (about; 0 for not known), those copied and those
// purged. One that is given up is nowhere. It returns less than before when
// rows are copied anew, and when a move goes back.
func MoveProgress(phase MovePhase, rows, copied, purged int64) float64 {
	part := func(n, of int64) float64 { return min(float64(n)/float64(max(of, n, 1)), 1) }
	switch phase {
	case MoveCopying:
		if rows == 0 {
			return doneCopyFrom
		}
		return doneCopyFrom + (doneCopyTo-doneCopyFrom)*part(copied, rows)
	case MoveFollowing:
		return doneFollowed
	case MoveFlipped, MoveReversing:
		return doneFlipped
	case MovePurging:
		return doneFlipped + (1-doneFlipped)*part(purged, copied)
	case MoveDone:
		return 1
	}
	return 0
}

// Done returns how far the move is, 0 to 1: see MoveProgress.
func (m *Move) Done() float64 { return MoveProgress(m.Phase, m.Rows, m.Copied, m.Purged) }
