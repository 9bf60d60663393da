package failover

import (
	"sort"
	"time"
)

// maxSamples bounds the log. A full log forgets every second sample of its
// older half, so that it always reaches far back, ever more coarsely.
const maxSamples = 512

// sample is one answered question to the primary for its write position.
type sample struct {
	number uint64
	lsn    LSN
	began  time.Time
}

// sampleLog holds samples of one primary in one life on one timeline.
//
// Invariants: number grows strictly, lsn and began never fall.
type sampleLog struct {
	samples []sample
	flush   LSN
	// ahead is the primary's clock minus ours.
	ahead time.Duration
}

func (l *sampleLog) reset() { *l = sampleLog{samples: l.samples[:0]} }

// add records the answer to sample number, asked at began.
func (l *sampleLog) add(number uint64, o *Observation, began, ended time.Time) {
	if n := len(l.samples); n > 0 && o.Insert < l.samples[n-1].lsn {
		l.reset() // a primary that lost its unflushed tail in a crash
	}
	if len(l.samples) >= maxSamples {
		l.thin()
	}
	l.samples = append(l.samples, sample{number, o.Insert, began})
	l.flush = o.Flush
	// The server read its clock between began and ended.
	l.ahead = o.ServerTime.Sub(began.Add(ended.Sub(began) / 2))
}

func (l *sampleLog) thin() {
	half := len(l.samples) / 2
	kept := l.samples[:0]
	for i, s := range l.samples {
		if i >= half || i%2 == 0 {
			kept = append(kept, s)
		}
	}
	l.samples = kept
}

// covered returns the newest sample that a node with this replay position has
// replayed.
func (l *sampleLog) covered(replay LSN) (sample, bool) {
	i := sort.Search(len(l.samples), func(i int) bool { return l.samples[i].lsn > replay })
	if i == 0 {
		return sample{}, false
	}
	return l.samples[i-1], true
}

// lag measures a replica against the last sample. Two bounds on the age of its
// data are known, and the smaller holds: the time since the newest sample that
// it has replayed began, and the primary's clock minus the commit time that it
// replayed last. The first is coarse when samples are far apart, the second
// is far too large after an idle time.
func (l *sampleLog) lag(o *Observation, now time.Time) Lag {
	if len(l.samples) == 0 {
		return Lag{}
	}
	if o.Replay >= l.flush {
		return Lag{Known: true}
	}
	lag := Lag{Bytes: uint64(l.flush - o.Replay)}
	if s, ok := l.covered(o.Replay); ok {
		lag.Known, lag.Time = true, now.Sub(s.began)
	}
	if !o.ReplayedAt.IsZero() {
		behind := max(0, now.Add(l.ahead).Sub(o.ReplayedAt))
		if !lag.Known || behind < lag.Time {
			lag.Known, lag.Time = true, behind
		}
	}
	return lag
}

// orphanLag measures a replica while there is no primary: against the
// furthest that any reachable replica has received, for nothing newer can be
// read anywhere.
func orphanLag(o *Observation, furthest LSN) Lag {
	if o.Replay >= furthest {
		return Lag{Known: true}
	}
	lag := Lag{Bytes: uint64(furthest - o.Replay)}
	if !o.ReplayedAt.IsZero() {
		lag.Known, lag.Time = true, max(0, o.ServerTime.Sub(o.ReplayedAt))
	}
	return lag
}
