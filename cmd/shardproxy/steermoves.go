package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/admin"
	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/wire"
)

// Disable implements admin.Steerer.
func (s *source) Disable(name string, on bool) error {
	db, err := s.find(name)
	if err == nil {
		db.proxy.Disable(on)
	}
	return err
}

// ResetQueries implements admin.Steerer.
func (s *source) ResetQueries(name string) error {
	db, err := s.find(name)
	if err == nil {
		db.proxy.Tally.Reset(time.Now())
	}
	return err
}

// KillClient implements admin.Steerer.
func (s *source) KillClient(id uint64) bool { return s.p.server.KillClient(id) }

// BanNode implements admin.Steerer.
func (s *source) BanNode(name, node string, on bool) (int, error) {
	type place struct {
		sh *shard
		i  int
	}
	var places []place
	var err error
	s.each(func(db *database, conf *config.Database) {
		if name != "" && name != conf.Name {
			return
		}
		for _, sh := range db.shards {
			i := slices.Index(sh.conf.Nodes, node)
			if i < 0 {
				continue
			}
			places = append(places, place{sh, i})
			if p, ok := sh.monitor.Primary(); ok && int(p) == i && on {
				err = wire.Errorf("55000", "node %s takes the writes of shard %s of database %s: it cannot be banned", node, sh.conf.Name, conf.Name).
					WithHint("Switch over to another node first; PAUSE keeps all statements away from a database.")
			}
		}
	})
	if err != nil {
		return 0, err
	}
	for _, p := range places {
		log := s.p.log.With("database", p.sh.db.conf.Name, "shard", p.sh.conf.Name, "node", node)
		bit := uint64(1) << p.i
		if !on {
			p.sh.banned.And(^bit)
			log.Info("node is unbanned: reads may come to it again")
			continue
		}
		p.sh.banned.Or(bit)
		p.sh.pools.Retire(p.i)
		log.Warn("node is banned: no reads come to it")
	}
	return len(places), nil
}

// Drain implements admin.Steerer.
func (s *source) Drain(on bool) { s.p.drained.Store(on) }

// orderTimeout bounds what is asked of moves.
const orderTimeout = 10 * time.Second

// OrderMoves implements admin.Steerer.
func (s *source) OrderMoves(ctx context.Context, o admin.MoveOrder) (string, error) {
	db, err := s.find(o.Database)
	if err != nil {
		return "", err
	}
	if db.cluster == nil {
		return "", wire.Errorf("55000", "database %s has one shard: nothing moves", o.Database)
	}
	bounded, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	home, err := db.shards[0].connect(bounded)
	if err != nil {
		return "", orderError(ctx, fmt.Errorf("%w: %w", metadata.ErrUnreachable, err))
	}
	defer endConn(home)
	said, err := askMoves(bounded, home, o)
	if err != nil {
		return "", orderError(ctx, err)
	}
	db.cluster.looks.refresh(ctx)
	return said, nil
}

// askMoves stores what is wanted, and says of how many moves.
func askMoves(ctx context.Context, home *pgx.Conn, o admin.MoveOrder) (string, error) {
	ids := append([]int64{}, o.IDs...)
	none := func(n int64) error {
		if len(ids) > 0 && n == 0 {
			return wire.Errorf("55000", "none of these moves is one that %s is about", strings.ToUpper(string(o.Wanted))).
				WithHint("SHOW MOVES and SHOW MOVE_HISTORY have the moves; only reversible ones can be completed or rolled back.")
		}
		return nil
	}
	switch o.Wanted {
	case admin.MovePause, admin.MoveResume:
		n, err := metadata.PauseMoves(ctx, home, o.Wanted == admin.MovePause)
		return fmt.Sprintf("%sd: %d", o.Wanted, n), err
	case admin.MoveAbort:
		n, err := metadata.AbortMoves(ctx, home)
		return fmt.Sprintf("given up: %d; going on to their end: %d%s", n.Aborted, n.GoOn, keptMoves(n.Kept)), err
	case admin.MoveRollback:
		n, err := metadata.RollBackMoves(ctx, home, ids)
		if err == nil {
			err = none(n.Wanted + n.Aborted)
		}
		return fmt.Sprintf("to be rolled back: %d; given up: %d; going on to their end: %d%s", n.Wanted, n.Aborted, n.GoOn, keptMoves(n.Kept)), err
	case admin.MoveComplete:
		n, err := metadata.CompleteMoves(ctx, home, ids)
		if err == nil {
			err = none(n.Wanted)
		}
		return fmt.Sprintf("to be completed: %d%s", n.Wanted, keptMoves(n.Kept)), err
	}
	return "", wire.Errorf("0A000", "moves cannot be asked to %q", o.Wanted)
}

// orderError says to the client why nothing, or nobody knows what, was stored.
func orderError(ctx context.Context, err error) error {
	var said *wire.Error
	var p *metadata.Problem
	switch {
	case errors.As(err, &said):
		return said
	case errors.Is(err, metadata.ErrOutcome):
		return wire.Errorf("08007", "it is not known whether that was stored").WithDetail("%s", err.Error()).WithHint("See SHOW MOVES, and order it again.")
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &p) && !errors.Is(err, metadata.ErrUnreachable):
		return wire.Errorf("55000", "%s", p.Reason).WithHint("%s", p.Hint)
	}
	return wire.Errorf("08001", "the home shard cannot be asked").WithDetail("%s", err.Error())
}
