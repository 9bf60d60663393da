package twopc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
	"shardproxy/wire"
)

// TestFenceCut: a connection that breaks while it gives a lock back, because another shard's
// could not be had, is opened anew.
func TestFenceCut(t *testing.T) {
	f := newFleet(t, 2)
	fence := f.fence(nil)
	shards := []int{0, 1}
	ctx := context.Background()
	for _, i := range shards {
		if got, err := fence.try(ctx, i); err != nil || !got {
			t.Fatal(got, err)
		}
	}
	fence.sessions[1].close()
	if err := fence.releaseAll(shards); err == nil {
		t.Fatal("a lock is given back over a connection that is closed")
	}
	if held, err := fence.awaitRest(ctx, shards, 0, time.Second); held != 1 || err != nil {
		t.Errorf("%d held, %v", held, err)
	}
	if err := fence.releaseAll(shards[:1]); err != nil {
		t.Error(err)
	}
	w, err := fence.Enter(ctx, shards)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Leave(); err != nil {
		t.Error(err)
	}
}

// TestFenceBlames: when the time for a window is over, the shard is named whose transaction does not
// end, and not the one that was asked just then.
func TestFenceBlames(t *testing.T) {
	f := newFleet(t, 2) // the second comes first, by name
	f.do(0, "BEGIN; SELECT shardproxy.take_part(); PREPARE TRANSACTION 'stays'")
	defer f.do(0, "ROLLBACK PREPARED 'stays'")
	var fence *Fence
	waited := false
	fence = f.fence(func(o *FenceOptions) {
		o.Wait = 300 * time.Millisecond
		o.Waited = func() {
			if !waited {
				fence.sessions[1].close()
			}
			waited = true
		}
		o.Shards[1].Connect = slowAfter(o.Shards[1].Connect, &waited)
	})
	_, err := fence.Enter(t.Context(), []int{0, 1})
	var said *wire.Error
	if !errors.As(err, &said) || said.Code != "40001" || said.Detail != "Shard s0." {
		t.Errorf("%+v", said)
	}
}

// slowAfter connects, and once the flag is up does not until its context has ended.
func slowAfter(connect metadata.Connect, flag *bool) metadata.Connect {
	return func(ctx context.Context) (*pgx.Conn, error) {
		if !*flag {
			return connect(ctx)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}
