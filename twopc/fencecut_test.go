package twopc

import (
	"context"
	"testing"
	"time"
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
