package main

import (
	"strings"
	"testing"
	"time"
)

// TestMoveBar draws one move from its beginning to its end: the bar only grows, and says how long it takes as soon as that is known.
func TestMoveBar(t *testing.T) {
	var b moveBar
	now := time.Unix(0, 0)
	last := -1
	for _, c := range []struct {
		phase          string
		copied, purged int64
		want           string
	}{
		{"planned", 0, 0, "move 3, 2 slots from s0 to s1 [..............................]   0 %  planned"},
		{"copying", 0, 0, "[#.............................]   5 %  copying"},
		{"copying", 1000, 0, "[####..........................]  14 %  copying, 1000 rows, 1000/s, about 8s left"},
		{"copying", 9000, 0, "[######################........]  75 %  copying, 9000 rows, 3100/s"},
		{"copying", 8000, 0, "[######################........]  75 %  copying, 8000 rows"}, // it was begun again
		{"following", 8000, 0, "[#########################.....]  85 %  following, 8000 rows"},
		{"flipped", 8000, 0, "]  90 %  flipped"},
		{"purging", 8000, 4000, "]  95 %  purging"},
		{"purging", 8000, 8000, "[##############################] 100 %  purging"},
	} {
		line := b.draw(&movePrinted{ID: 3, Kind: "slots", From: "s0", To: "s1", Slots: []uint16{1, 2}, Rows: 8000, Phase: c.phase, Copied: c.copied, Purged: c.purged}, now)
		if !strings.Contains(line, c.want) {
			t.Errorf("%s\nwant %s", line, c.want)
		}
		if n := strings.Count(line, "#"); n < last {
			t.Errorf("the bar shrinks: %s", line)
		} else {
			last = n
		}
		now = now.Add(time.Second)
	}
	said := b.draw(&movePrinted{ID: 3, Kind: "join", To: "s2", Phase: "aborting", Said: strings.Repeat("ä\n", 200)}, now)
	if !strings.HasPrefix(said, "move 3, shard s2 joins [......") || strings.Contains(said, "\n") || len(said) > 158 || !strings.HasSuffix(said, "...") {
		t.Errorf("%q", said)
	}
}

// TestMoveWatchDraws draws over what it drew, and leaves the lines of moves that have ended.
func TestMoveWatchDraws(t *testing.T) {
	var out strings.Builder
	w := &moveWatch{out: &out, bars: true}
	for _, step := range [][2][]string{{nil, {"a", "b"}}, {{"a ended"}, {"b"}}, {{"b ended"}, nil}} {
		if err := w.print(step[0], step[1]); err != nil {
			t.Fatal(err)
		}
	}
	if want := "a\nb\n\x1b[2A\x1b[Ja ended\nb\n\x1b[1A\x1b[Jb ended\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
