package admin

import (
	"context"
	"time"

	"shardproxy/wire"
)

func doubtColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("shard", "The shard that has it prepared."),
		textColumn("name", "The prepared transaction's name there, as in pg_prepared_xacts: what TWOPC takes."),
		textColumn("owner", "The role that prepared it."),
		int8Column("age", "Seconds since then."),
		textColumn("reason", "Why it could not be finished yet."),
	}
}

func showTwoPC(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		for _, doubt := range d.Doubts {
			rows = append(rows, []any{d.Name, doubt.Shard, doubt.Name, doubt.Owner, int64(doubt.Age / time.Second), doubt.Reason})
		}
	}
	return rows
}

// twoPC is the command that ends a transaction in doubt.
func twoPC() *command {
	return &command{name: "TWOPC", usage: "TWOPC {COMMIT | ROLLBACK} 'name' [FORCE]", needs: maySteer, run: runTwoPC,
		doc: "Ends a prepared part of a transaction over several shards by hand, the last resort: recovery does it by itself as soon as the shard that decides it can be asked. What that shard says holds: without FORCE nothing is done against it, nor COMMIT without it. ROLLBACK sees to it first that the transaction can no longer be committed. The log says who did it."}
}

func runTwoPC(ctx context.Context, s *session, r request) (result, *wire.Error) {
	if err := s.console.opt.Steerer.EndDoubt(ctx, s.id.User, r.arg, r.name == "commit", r.force); err != nil {
		return result{}, wire.AsError(err)
	}
	return result{tag: "TWOPC"}, nil
}
