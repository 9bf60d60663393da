package failover

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func lsnSample(insert LSN) *Observation { return &Observation{Insert: insert, Flush: insert} }

// TestCoveredAgainstAnOracle compares the log with a list of all samples: what
// it says is covered is, and while nothing was forgotten it is the newest.
func TestCoveredAgainstAnOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var log sampleLog
		var all []sample
		lsn, at := LSN(1000), scriptStart
		for k := range uint64(rapid.IntRange(1, 3*maxSamples).Draw(rt, "samples")) {
			lsn += LSN(rapid.SampledFrom([]int{0, 0, 1, 50}).Draw(rt, "written"))
			at = at.Add(time.Second)
			log.add(k+1, lsnSample(lsn), at, at)
			all = append(all, sample{k + 1, lsn, at})
		}
		if len(log.samples) > maxSamples {
			rt.Fatalf("%d samples kept", len(log.samples))
		}
		for i := 1; i < len(log.samples); i++ {
			if a, b := log.samples[i-1], log.samples[i]; a.number >= b.number || a.lsn > b.lsn {
				rt.Fatalf("samples out of order: %v %v", a, b)
			}
		}
		replay := LSN(rapid.IntRange(900, int(lsn)+100).Draw(rt, "replay"))
		got, ok := log.covered(replay)
		var newest sample
		for _, s := range all {
			if s.lsn <= replay {
				newest = s
			}
		}
		if ok && (all[got.number-1] != got || got.lsn > replay) {
			rt.Fatalf("covered %v at %v", got, replay)
		}
		if len(all) <= maxSamples && got != newest || replay >= lsn && got != newest {
			rt.Fatalf("covered %v at %v, newest is %v", got, replay, newest)
		}
	})
}

// A primary that crashed with its last records unwritten comes back before
// them: what it had promised about those positions is void.
func TestPositionGoesBack(t *testing.T) {
	var log sampleLog
	log.add(1, lsnSample(100), scriptStart, scriptStart)
	log.add(2, lsnSample(200), scriptStart, scriptStart)
	log.add(3, lsnSample(150), scriptStart, scriptStart)
	if s, ok := log.covered(199); !ok || s.number != 3 {
		t.Fatalf("covered %v", s)
	}
	if _, ok := log.covered(120); ok {
		t.Fatal("a sample of the lost tail is left")
	}
}

func TestLag(t *testing.T) {
	at := func(s float64) time.Time { return scriptStart.Add(time.Duration(s * float64(time.Second))) }
	var log sampleLog
	if l := log.lag(&Observation{Replay: 5}, at(0)); l.Known {
		t.Fatal("lag known without a sample")
	}
	// The primary's clock is an hour ahead of ours.
	for k, lsn := range []LSN{100, 200, 300} {
		o := lsnSample(lsn)
		o.ServerTime = at(float64(k)).Add(time.Hour)
		log.add(uint64(k+1), o, at(float64(k)), at(float64(k)))
	}
	for name, c := range map[string]struct {
		replay   LSN
		replayed time.Time
		want     Lag
	}{
		"everything":                {300, at(-3600), Lag{Known: true}},
		"more than sampled":         {400, time.Time{}, Lag{Known: true}},
		"behind, idle before":       {250, at(-3600), Lag{Known: true, Bytes: 50, Time: 1500 * time.Millisecond}},
		"behind by its commit time": {250, at(2.3).Add(time.Hour), Lag{Known: true, Bytes: 50, Time: 200 * time.Millisecond}},
		"commit time in the future": {250, at(9).Add(time.Hour), Lag{Known: true, Bytes: 50}},
		"behind all samples":        {50, at(-1).Add(time.Hour), Lag{Known: true, Bytes: 250, Time: 3500 * time.Millisecond}},
		"behind all, no commit":     {50, time.Time{}, Lag{Bytes: 250}},
	} {
		got := log.lag(&Observation{Replay: c.replay, ReplayedAt: c.replayed}, at(2.5))
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestOrphanLag(t *testing.T) {
	o := &Observation{Replay: 90, ServerTime: scriptStart.Add(2 * time.Second), ReplayedAt: scriptStart}
	if got, want := orphanLag(o, 100), (Lag{Known: true, Bytes: 10, Time: 2 * time.Second}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := orphanLag(o, 90), (Lag{Known: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
