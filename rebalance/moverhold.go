package rebalance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
)

// caughtUp waits until the last changes take next to no time.
func (r *moving) caughtUp(ctx context.Context, source *pgx.Conn) error {
	for told := time.Now(); !r.empty(); {
		begin := time.Now()
		end, err := r.carry.SourceEnd(ctx, source)
		if err != nil {
			return err
		}
		if err := r.carry.WaitFor(ctx, end); err != nil {
			return err
		}
		if time.Since(begin) < moverCaught {
			return nil
		}
		if time.Since(told) > moverTell {
			told = time.Now()
			r.say(ctx, fmt.Sprintf("carries changes over, %.1f s behind", time.Since(begin).Seconds()))
		}
		if err := r.reread(ctx); err != nil {
			return err
		}
	}
	return nil
}

// heldAgain does something while writes are held, as often as it takes.
func (r *moving) heldAgain(ctx context.Context, source *pgx.Conn, what func(context.Context, *pgx.Conn, time.Time) error) error {
	for pause := moverWatch; ; pause = min(2*pause, moverBackoff) {
		if err := r.rest(ctx); err != nil {
			return err
		}
		if err := r.caughtUp(ctx, source); err != nil {
			return err
		}
		if err := r.prepare(ctx); err != nil {
			return err
		}
		if err := r.cutAbsent(ctx); err != nil {
			return err
		}
		if err := r.sameTables(ctx, source); err != nil {
			return err
		}
		err := r.hold(ctx, source, what)
		if !errors.Is(err, errLate) {
			return err
		}
		r.say(ctx, fmt.Sprintf("writes were held for %s in vain, and will be again: %v", r.m.limits().HoldLimit, err))
		for end := time.Now().Add(pause); time.Now().Before(end); {
			if err := carrySleep(ctx, min(pause, moverWatch)); err != nil {
				return err
			}
			if err := r.reread(ctx); err != nil {
				return err
			}
		}
	}
}

// hold holds writes of the slots, has the last changes carried over, does something, and releases the writes unless the target owns the slots
// then. The error is errLate when others take longer than the limit, or what the mover does itself once they are through as long again: to give
// up then would hold the writes once more for the same.
func (r *moving) hold(ctx context.Context, source *pgx.Conn, what func(context.Context, *pgx.Conn, time.Time) error) (err error) {
	// Others may change the map when these slots are not held any more: behind a flip that is when all know the new owner. Two that hold
	// at once would wait for each other's transactions.
	if err := r.alone(ctx); err != nil {
		return err
	}
	defer func() {
		if !r.move.Phase.Flipped() {
			r.share()
		}
	}()
	r.now, err = r.held(ctx, true)
	if err != nil {
		return err
	}
	begin := time.Now() // the proxies hear of it now
	end := begin.Add(r.m.limits().HoldLimit)
	r.flipped = begin
	took := []any{"move", r.move.ID}
	lap := func(what string) { took = append(took, what, time.Since(begin).Round(time.Millisecond)) }
	defer func() {
		lap("done")
		r.m.o.Logger.Info("writes were held", append(took, "error", err)...)
		if r.move.Phase.Flipped() || r.home.IsClosed() {
			return // the next mover releases them
		}
		if released := r.release(ctx, source); err == nil || errors.Is(err, errLate) && released != nil {
			err = released
		}
	}()
	err = r.await(ctx, end, "statements and transactions that write", func(a *metadata.Acknowledgement) bool {
		return a.Writes >= r.now.Epoch() && r.knownTo(a)
	})
	if err != nil {
		return err
	}
	lap("acknowledged")
	if !r.empty() {
		if err := r.setFence(ctx, source, true, end); err != nil {
			return err
		}
		lap("fence")
		if err := r.lastChanges(ctx, source, end.Add(r.m.limits().HoldLimit)); err != nil {
			return err
		}
		lap("applied")
	}
	return what(ctx, source, end.Add(r.m.limits().HoldLimit))
}

// lastChanges waits until all is carried over that the source has committed; with the end of its time the error is errLate.
func (r *moving) lastChanges(ctx context.Context, source *pgx.Conn, end time.Time) error {
	last, err := r.carry.SourceEnd(ctx, source)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	if err = r.carry.WaitFor(bounded, last); err != nil && ctx.Err() == nil {
		err = fmt.Errorf("waits for the last changes: %w", errLate)
	}
	return err
}

// releaseLimit bounds what releases writes.
const releaseLimit = 10 * time.Second

// releaseAlone is release of who does not hold.
func (r *moving) releaseAlone(ctx context.Context, source *pgx.Conn) error {
	if err := r.alone(ctx); err != nil {
		return err
	}
	defer r.share()
	return r.release(ctx, source)
}

// release opens the fence and lets writes go on. It does so too when the move does not go on; where the fence cannot be opened, who
// comes to it is refused, and does not wait.
func (r *moving) release(ctx context.Context, source *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	var opened error
	if !r.empty() {
		opened = r.setFence(ctx, source, false, time.Time{})
	}
	_, err := r.held(ctx, false)
	return errors.Join(opened, err)
}
