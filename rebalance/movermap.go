package rebalance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// change stores a slot map that differs from the stored one as alter says, and returns it; the stored one when nothing differs.
func (m *Mover) change(ctx context.Context, home *pgx.Conn, alter func(now *shardmap.Map) (*shardmap.Map, error)) (*shardmap.Map, error) {
	for {
		now, _, err := metadata.Load(ctx, home)
		if err != nil {
			return nil, err
		}
		next, err := alter(now)
		if err != nil || next == nil {
			return now, err
		}
		err = metadata.Change(ctx, home, now.Epoch(), next)
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, metadata.ErrConflict) {
			return nil, err
		}
	}
}

// guard has statements over several shards leave hidden rows out, or not any more, from the returned map on.
func (m *Mover) guard(ctx context.Context, home *pgx.Conn, on bool) (*shardmap.Map, error) {
	return m.change(ctx, home, func(now *shardmap.Map) (*shardmap.Map, error) {
		if now.Guarded() == on {
			return nil, nil
		}
		return now.Guard(now.Epoch()+1, on), nil
	})
}

func (m *Mover) guarded(ctx context.Context, home *pgx.Conn) (bool, error) {
	now, _, err := metadata.Load(ctx, home)
	return err == nil && now.Guarded(), err
}

// unguard lets statements over several shards be as they were: no move is left.
func (m *Mover) unguard(ctx context.Context, home *pgx.Conn) error {
	now, err := m.guard(ctx, home, false)
	if err != nil {
		return err
	}
	_, c, err := metadata.Load(ctx, home)
	if err != nil {
		return err
	}
	return metadata.SpreadEpoch(ctx, c, m.shards(now), now.Epoch())
}

// held has writes of the move's slots wait, or not any more, from the returned map on. Where a shard joins or leaves it
// is writes of what all shards have, and definitions.
func (r *moving) held(ctx context.Context, on bool) (*shardmap.Map, error) {
	return r.m.change(ctx, r.home, func(now *shardmap.Map) (*shardmap.Map, error) {
		if r.move.Kind != metadata.MoveSlots {
			if now.Closed() == on {
				return nil, nil
			}
			return now.Close(now.Epoch()+1, on), nil
		}
		rows, differs := now.Rows(), false
		for _, s := range r.slots.Slots() {
			differs = differs || rows[s].Held != on
			rows[s].Held = on
		}
		if !differs {
			return nil, nil
		}
		return now.Next(rows)
	})
}

// unhold has writes of the move's slots wait no more, whoever has had them wait.
func (r *moving) unhold(ctx context.Context) error {
	if err := r.alone(ctx); err != nil {
		return err
	}
	defer r.share()
	_, err := r.held(ctx, false)
	return err
}

// errLate says that somebody did not come so far in time.
var errLate = errors.New("not in time")

// await waits until all proxies have come so far; with an end until then, and the error is errLate. The connection is
// asked without the end's context, for it has the lock.
func (r *moving) await(ctx context.Context, end time.Time, what string, far func(*metadata.Acknowledgement) bool) error {
	begin, told := time.Now(), false
	for {
		all, err := metadata.Acknowledged(ctx, r.home)
		if err != nil {
			return err
		}
		var late []string
		for i := range all {
			absent := r.m.absent(&all[i])
			if far(&all[i]) {
				continue
			}
			late = append(late, fmt.Sprintf("%s (%s)", all[i].Proxy, all[i].Host))
			if absent && end.IsZero() {
				if err := r.cutOff(ctx, all[i].Proxy); err != nil {
					return err
				}
			}
		}
		if len(late) == 0 {
			return nil
		}
		slices.Sort(late)
		who := fmt.Sprintf("%s, of proxy %s", what, strings.Join(late, ", "))
		switch now := time.Now(); {
		case !end.IsZero() && now.After(end):
			return fmt.Errorf("waits for %s: %w", who, errLate)
		case end.IsZero() && !told && now.Sub(begin) > moverTell:
			told = true
			r.say(ctx, "waits for "+who)
		case end.IsZero() && told:
			if err := r.reread(ctx); err != nil {
				return err
			}
		}
		pause := moverPoll
		if told {
			pause = 10 * moverPoll
		}
		if err := carrySleep(ctx, pause); err != nil {
			return err
		}
	}
}

// absentFor is for how long a proxy's session on the home shard must have been away before the proxy is cut off: it comes back at once
// when it can.
const absentFor = 5 * time.Second

// silentFor is for how long a proxy may not have told anything, which it does every five seconds: its host is gone, or it is stopped.
const silentFor = 20 * time.Second

// cutAbsent cuts off who would be waited for in vain.
func (r *moving) cutAbsent(ctx context.Context) error {
	all, err := metadata.Acknowledged(ctx, r.home)
	if err != nil {
		return err
	}
	for i := range all {
		if !r.m.absent(&all[i]) {
			continue
		}
		if err := r.cutOff(ctx, all[i].Proxy); err != nil {
			return err
		}
	}
	return nil
}

// absent reports whether a proxy that is waited for has been away for long.
func (m *Mover) absent(a *metadata.Acknowledgement) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.Age > silentFor {
		return true
	}
	if a.Present {
		delete(m.away, a.Proxy)
		return false
	}
	since, known := m.away[a.Proxy]
	if !known {
		m.away[a.Proxy] = time.Now()
		return false
	}
	return time.Since(since) > absentFor
}

// cutOff ends all sessions that a proxy has on any shard, and then waits for it no more. Should it still run, it cannot use another one before it knows
// the newest slot map: a new one is made, which it cannot know, and every shard is told first that there is one. One that has told anything meanwhile is still
// waited for.
func (r *moving) cutOff(ctx context.Context, proxy string) error {
	m, home, mine := r.m, r.home, r.mine
	if err := r.alone(ctx); err != nil {
		return err
	}
	if !mine {
		defer r.share()
	}
	told, err := metadata.LastHeard(ctx, home, proxy)
	if err != nil {
		return err
	}
	if _, err := m.change(ctx, home, func(now *shardmap.Map) (*shardmap.Map, error) { return now.Next(now.Rows()) }); err != nil {
		return err
	}
	now, c, err := metadata.Load(ctx, home)
	if err != nil {
		return err
	}
	if err := metadata.SpreadEpoch(ctx, c, m.shards(now), now.Epoch()); err != nil {
		return err
	}
	if now.Closed() { // one that leaves this moment is asked too, but its server may be shut down
		for _, s := range m.o.Shards {
			if !slices.Contains(now.Shards(), s.Name) {
				_ = metadata.SpreadEpoch(ctx, c, []metadata.Shard{{Name: s.Name, Connect: s.Connect}}, now.Epoch())
			}
		}
	}
	var ended int64
	for i := range m.o.Shards {
		member := slices.Contains(now.Shards(), m.o.Shards[i].Name)
		if !member && !now.Closed() {
			continue // it is no shard of the cluster: nobody uses it
		}
		n, err := m.endSessions(ctx, &m.o.Shards[i], proxy)
		if !member {
			err = nil
		}
		if err != nil {
			return err
		}
		ended += n
	}
	forgotten, err := metadata.ForgetUnheard(ctx, home, proxy, told)
	if err != nil || !forgotten {
		return err
	}
	m.mu.Lock()
	delete(m.away, proxy)
	m.mu.Unlock()
	m.o.Logger.Warn("a proxy that is not there any more was cut off from the shards", "proxy", proxy, "sessions", ended)
	return nil
}

// endSessions ends a proxy's sessions on the primary of a shard, until there is none.
func (m *Mover) endSessions(ctx context.Context, s *MoverShard, proxy string) (all int64, err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer carryClose(conn.PgConn())
	var now time.Time // those that come later must know the newest map
	if err := conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return 0, err
	}
	for {
		n, err := metadata.CutOff(ctx, conn, proxy, now)
		if err != nil || n == 0 {
			return all, err
		}
		all += n
		if err := carrySleep(ctx, 50*time.Millisecond); err != nil {
			return all, err
		}
	}
}

// shards are those of a map as metadata takes them.
func (m *Mover) shards(now *shardmap.Map) (all []metadata.Shard) {
	for _, s := range m.o.Shards {
		if slices.Contains(now.Shards(), s.Name) {
			all = append(all, metadata.Shard{Name: s.Name, Connect: s.Connect})
		}
	}
	return all
}
