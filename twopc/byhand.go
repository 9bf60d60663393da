package twopc

import (
	"context"
	"errors"
	"fmt"

	"shardproxy/metadata"
	"shardproxy/wire"
)

// EndByHand commits or rolls back the prepared part of a name, on the shard that has it: an
// operator's last resort. The shard that decides the transaction is asked first. What it says
// holds unless force is set: 55000 when it says otherwise, or cannot be asked, or, for a commit, has no
// decision. A rollback writes a tombstone there first, so that no coordinator can commit any more. Other
// errors are 22023 (the name is none of the cluster's), 42704 (no shard has it) and 08006
// (a shard cannot be asked for it).
func (r *Resolver) EndByHand(ctx context.Context, by, name string, commit, force bool) error {
	gid, word, err := parsePart(r.opts.Cluster, name)
	if err != nil {
		return wire.Errorf("22023", "%v of a transaction over several shards of this cluster", err).WithHint("SHOW TWOPC lists those in doubt.")
	}
	at, s, p, err := r.locate(ctx, name)
	if err != nil {
		return err
	}
	defer s.close()
	if why := r.against(ctx, gid, word, p, commit); why != "" && !force {
		return wire.Errorf("55000", "the transaction is left as it is: %s", why).
			WithHint("Recovery ends it as soon as the shard that decides it can be asked. With FORCE it is ended against that; the transaction may then be committed on some shards only.")
	} else if why != "" {
		r.opts.Logger.Warn("a transaction in doubt is ended against what decides it", "name", name, "reason", why, "by", by)
	}
	p.verdict = rollBackIt
	if commit {
		p.verdict = commitIt
	}
	if err := s.finish(ctx, p); err != nil {
		return wire.Errorf("55000", "the transaction could not be ended on shard %q: %v", r.opts.Shards[at].Name, err)
	}
	r.opts.Logger.Warn("a transaction in doubt was ended by hand", "name", name, "shard", r.opts.Shards[at].Name, "commit", commit, "force", force, "by", by)
	r.Poke()
	return nil
}

// locate finds the shard that has a part prepared, and a session there.
func (r *Resolver) locate(ctx context.Context, name string) (shard int, s *session, p *part, err error) {
	var unasked string
	for i := range r.opts.Shards {
		s, err := r.connect(ctx, i)
		if errors.Is(err, metadata.ErrSpare) {
			continue
		}
		if err != nil {
			unasked = fmt.Sprintf("Shard %s: %v.", r.opts.Shards[i].Name, err)
			continue
		}
		all, err := s.list(ctx, r.opts.Cluster, i)
		if err != nil {
			unasked = fmt.Sprintf("Shard %s: %v.", r.opts.Shards[i].Name, err)
		}
		for _, p := range all {
			if p.name == name {
				return i, s, p, nil
			}
		}
		s.close()
	}
	if unasked != "" {
		return 0, nil, nil, wire.Errorf("08006", "no shard that can be asked has a prepared transaction of the name").WithDetail("%s", unasked)
	}
	return 0, nil, nil, wire.Errorf("42704", "no shard has a prepared transaction of the name").WithHint("It may have been ended meanwhile. SHOW TWOPC lists those in doubt.")
}

// against returns what speaks against ending a part so, "" for nothing.
func (r *Resolver) against(ctx context.Context, gid, word string, p *part, commit bool) string {
	decider, known := r.words[word]
	if !known {
		return fmt.Sprintf("shard %q, which decides it, is not among the shards", word)
	}
	s, err := r.connect(ctx, decider)
	if err != nil {
		return fmt.Sprintf("shard %q, which decides it, cannot be asked: %v", r.opts.Shards[decider].Name, err)
	}
	defer s.close()
	var found row
	if commit {
		found, err = s.lookUp(ctx, gid)
	} else {
		found, _, err = s.settle(ctx, gid)
	}
	if err != nil {
		return fmt.Sprintf("shard %q, which decides it, does not answer: %v", r.opts.Shards[decider].Name, err)
	}
	verdict, why := judge(found, p.owner)
	switch {
	case verdict == doubtful:
		return why
	case verdict == commitIt && !commit:
		return "it was decided to commit it"
	case verdict == rollBackIt && commit:
		return "it was given up, and may have been rolled back on other shards"
	}
	return ""
}
