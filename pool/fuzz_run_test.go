package pool

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"shardproxy/wire"
)

// answerSeeds are answers to a query, right ones and others.
var answerSeeds = []string{
	"T\x00\x00\x00\x21\x00\x01?column?\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011" +
		"C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05T",
	"E\x00\x00\x00]SERROR\x00VERROR\x00C42601\x00Msyntax error at or near \"SELEC\"\x00P1\x00Fscan.l\x00L1188\x00Rscanner_yyerror\x00\x00Z\x00\x00\x00\x05E",
	"N\x00\x00\x00lSWARNING\x00VWARNING\x00C25P01\x00Mthere is no transaction in progress\x00Fxact.c\x00L4110\x00RUserAbortTransactionBlock\x00\x00" +
		"C\x00\x00\x00\rROLLBACK\x00Z\x00\x00\x00\x05I",
	"E\x00\x00\x00\x0eVFATAL\x00\x00\x00\x00Z\x00\x00\x00\x05I", "Z\x00\x00\x00\x05X", "Z\x00\x00\x00\x04", "Z\x00\x00\x00\x05IZ\x00\x00\x00\x05I",
	"D\x3f\xff\xff\xff", "D\x00\x10\x00\x00", "E\x3f\xff\xff\xff", "C\xff\xff\xff\xff", "S\x00\x00\x00\x03", "G\x00\x00\x00\x07\x00\x00\x00Z\x00\x00\x00\x05I", "",
	"C\x00\x00\x00\x05xZ\x00\x00\x00\x05I", "D\x00\x00\x00\x07abcD\x00\x00\x00\x07abcZ\x00\x00\x00\x05T",
}

// FuzzRun has a server answer a query with anything. What is kept is what it said,
// within its bound; a connection that is said to be good is at the end of an answer.
func FuzzRun(f *testing.F) {
	for _, s := range answerSeeds {
		for _, keep := range []uint16{0, 8, 1000} {
			f.Add([]byte(s), keep, keep == 8, false)
			f.Add([]byte(s), keep, keep == 8, true)
		}
	}
	server, address := newScripted(f)
	p, u := scriptedPool(f, address, patience)
	f.Fuzz(func(t *testing.T, said []byte, keep uint16, detached, waits bool) {
		server.say([]byte(loginSaid), said)
		s, err := borrow(u, patience)
		if err != nil {
			t.Fatal(err)
		}
		if detached && s.Socket().Detach() != nil {
			t.Fatal("not detached")
		}
		before := heapAllocs()
		a, err := RunsOf[waits](context.Background(), s, wire.AppendQuery(nil, "SELECT"), RunOptions{Keep: int(keep)})
		cost := heapAllocs() - before
		fate := Dead
		var we *wire.Error
		if err == nil || errors.Is(err, ErrAnswerTooLarge) || errors.As(err, &we) && !we.IsFatal() {
			fate = Clean
			mustBeAnswer(t, said, a, err, int(keep))
		}
		s.Release(fate)
		p.Retire(0)
		returned(t, p)
		if cost > 80<<20 { // of the largest message that is read whole
			t.Errorf("takes %d MiB of memory: %v", cost>>20, err)
		}
	})
}

// mustBeAnswer compares an answer with what was said up to its ReadyForQuery.
func mustBeAnswer(t *testing.T, said []byte, a Answer, err error, keep int) {
	t.Helper()
	_, used := restsAfter(said, 1)
	if used == 0 {
		t.Fatalf("%q is taken for an answer: %v", said, err)
	}
	var kept []byte
	failed := false
	for rest := said[:used]; len(rest) > 0; {
		size := 1 + (int(rest[1])<<24 | int(rest[2])<<16 | int(rest[3])<<8 | int(rest[4]))
		kind, whole := rest[0], rest[:size]
		rest = rest[size:]
		switch kind {
		case 'E':
			failed = true
		case 'Z':
			if len(whole) != 6 || a.Status != whole[5] || !bytes.ContainsRune([]byte("ITE"), rune(a.Status)) {
				t.Errorf("status %q of %q", a.Status, whole)
			}
		case 'G', 'W':
			t.Errorf("%q waits for copy data", said)
		case 'N':
			if !failed && len(kept)+len(whole) <= keep {
				kept = append(kept, whole...)
			}
		case 'S', 'A':
		default:
			if !failed {
				kept = append(kept, whole...)
			}
		}
	}
	switch {
	case failed && (err == nil || a.Error == nil):
		t.Errorf("%q: no error", said)
	case errors.Is(err, ErrAnswerTooLarge) && len(kept) <= keep:
		t.Errorf("%d bytes are too large for %d", len(kept), keep)
	case err == nil && keep > 0 && !bytes.Equal(a.Frames, kept):
		t.Errorf("keeps %q of %q", a.Frames, said)
	case len(a.Frames) > keep:
		t.Errorf("keeps %d bytes, more than %d", len(a.Frames), keep)
	}
}

// TestEndlessAnswer has a server answer a query with more and more rows: who waits
// for them can still give up, or have the query cancelled.
func TestEndlessAnswer(t *testing.T) {
	row := bytes.Repeat([]byte("D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011"), 5000)
	for way := range 4 {
		detached, run := way%2 == 1, RunsOf[way/2 == 1]
		_, u := endless(t, []byte(loginSaid), func(int) []byte { return row })
		s, err := borrow(u, patience)
		if err != nil {
			t.Fatal(err)
		}
		if detached && s.Socket().Detach() != nil {
			t.Fatal("not detached")
		}
		ctx, stop := context.WithCancel(context.Background())
		asked := 0
		done := make(chan error, 1)
		go func() {
			_, err := run(ctx, s, wire.AppendQuery(nil, "SELECT"), RunOptions{Keep: 100, Cancelled: func() bool {
				asked++
				stop()
				return true
			}})
			done <- err
		}()
		select {
		case err := <-done:
			if asked != 1 || !errors.Is(err, context.Canceled) {
				t.Errorf("asked %d times: %v", asked, err)
			}
		case <-time.After(patience):
			t.Error("goes on and on")
			_ = s.Socket().CloseRead()
			<-done
		}
		stop()
		s.Release(Dead)
	}
}
