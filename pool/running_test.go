package pool

import (
	"context"
	"testing"
	"time"

	"shardproxy/wire"
)

// RunsOf are the ways to run a request: false with Begin and Go, true with Run.
var RunsOf = map[bool]func(ctx context.Context, s *Server, frames []byte, o RunOptions) (Answer, error){
	false: runGoing,
	true: func(ctx context.Context, s *Server, frames []byte, o RunOptions) (Answer, error) {
		return s.Run(ctx, frames, o)
	},
}

// runGoing does with Begin and Go what Run does.
func runGoing(ctx context.Context, s *Server, frames []byte, o RunOptions) (Answer, error) {
	if err := s.Socket().SetNonBlocking(true); err != nil {
		return Answer{}, err
	}
	told := make(chan struct{}, 1)
	r := s.Begin(ctx, frames, o, func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !r.Go() {
		select {
		case <-told:
		case <-tick.C:
		}
	}
	return r.Answer()
}

// TestGoReturns: one call of Go does not read on for as long as there is something, and asks to be
// called again.
func TestGoReturns(t *testing.T) {
	row := []byte("D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011")
	piece := make([]byte, 0, 64<<10)
	for len(piece)+len(row) < cap(piece) {
		piece = append(piece, row...)
	}
	_, u := endless(t, []byte(loginSaid), func(int) []byte { return piece })
	s, err := borrow(u, patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Socket().SetNonBlocking(true); err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 1)
	r := s.Begin(t.Context(), wire.AppendQuery(nil, "SELECT"), RunOptions{}, func() { told <- struct{}{} })
	deadline := time.After(patience)
	for goes := true; goes; {
		if r.Go() {
			t.Fatal(r.Answer())
		}
		select {
		case <-told:
			goes = false
		case <-deadline:
			t.Fatal("it is not asked for more")
		default:
		}
	}
	s.Release(Dead)
}
