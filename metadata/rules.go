package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// rulesVersion is the version of the schema since which the cluster knows by which rules its rows are placed.
const rulesVersion = 9

const rulesTable = `
CREATE TABLE shardproxy.rules (
	one        boolean PRIMARY KEY DEFAULT true CHECK (one),
	rules      json NOT NULL,
	epoch      bigint NOT NULL,
	changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
REVOKE ALL ON shardproxy.rules FROM PUBLIC;
COMMENT ON TABLE shardproxy.rules IS 'One row: the rules for tables, keys, schemas and functions by which rows are placed. A proxy whose configuration has others does not serve the cluster. See shardproxy init --rules.';
COMMENT ON COLUMN shardproxy.rules.epoch IS 'The version of the slot map with which they came into force';
`

// readRules returns the stored rules, "" when there are none.
func readRules(ctx context.Context, tx pgx.Tx) (rules string, err error) {
	err = row(ctx, tx, "SELECT rules::text FROM shardproxy.rules").Scan(&rules)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return rules, err
}

func writeRules(ctx context.Context, tx pgx.Tx, rules string, epoch int64) error {
	_, err := exec(ctx, tx, `INSERT INTO shardproxy.rules (rules, epoch) VALUES ($1::text::json, $2)
		ON CONFLICT (one) DO UPDATE SET rules = excluded.rules, epoch = excluded.epoch, changed_at = excluded.changed_at`, rules, epoch)
	return err
}

// StoreRules replaces the cluster's rules, in one transaction with a map that follows the stored one; proxies that have others find
// that they have as they read it. With unserved set it is refused while any proxy serves the cluster, or has not taken leave of it: one that comes
// meanwhile finds the new rules. The error is a *Problem: those of Change, and ErrConflict when moves are under way, or somebody serves the cluster.
func StoreRules(ctx context.Context, home *pgx.Conn, from int64, next *shardmap.Map, rules string, unserved bool) error {
	err := within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		if unserved {
			if err := nobodyServes(ctx, tx); err != nil {
				return err
			}
		}
		if err := changeIn(ctx, tx, from, next); err != nil {
			return err
		}
		if err := noMoves(ctx, tx); err != nil { // changeIn has the lock of the epoch
			return err
		}
		return writeRules(ctx, tx, rules, next.Epoch())
	})
	if err != nil {
		return asked("", "store the rules", err)
	}
	return nil
}

// nobodyServes keeps proxies from telling that they serve the cluster until the transaction ends: they do so before they read the map.
func nobodyServes(ctx context.Context, tx pgx.Tx) error {
	if _, err := exec(ctx, tx, "LOCK TABLE shardproxy.acknowledged IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		return err
	}
	var who string
	if err := row(ctx, tx, "SELECT coalesce(string_agg(proxy || ' (' || host || ')', ', ' ORDER BY proxy), '') FROM shardproxy.acknowledged").Scan(&who); err != nil || who == "" {
		return err
	}
	return &Problem{Kind: ErrConflict, Reason: "the cluster is served by proxy " + who,
		Hint: "stop the proxies; one that is gone for good is taken away with \"shardproxy rebalance forget\""}
}

// RulesDiffer returns what two texts of rules have unlike, each as a clause, in the order of sections and names.
func RulesDiffer(own, stored string) (differ []string) {
	var a, b map[string]json.RawMessage
	if json.Unmarshal([]byte(own), &a) != nil || json.Unmarshal([]byte(stored), &b) != nil {
		return []string{"the rules are " + own + ", those of the cluster " + stored}
	}
	for _, section := range bothKeys(a, b) {
		var in, kept map[string]json.RawMessage
		if unmarshalNamed(a[section], &in) != nil || unmarshalNamed(b[section], &kept) != nil {
			differ = append(differ, oneDiffers(section, a[section], b[section])...)
			continue
		}
		for _, name := range bothKeys(in, kept) {
			differ = append(differ, oneDiffers(strings.TrimSuffix(section, "s")+" "+name, in[name], kept[name])...)
		}
	}
	return differ
}

func unmarshalNamed(text json.RawMessage, into *map[string]json.RawMessage) error {
	if len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, into)
}

func bothKeys(a, b map[string]json.RawMessage) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b)))))
}

func oneDiffers(what string, own, stored json.RawMessage) []string {
	switch {
	case bytes.Equal(own, stored):
		return nil
	case stored == nil:
		return []string{fmt.Sprintf("%s has the rule %s, and none in the cluster", what, own)}
	case own == nil:
		return []string{fmt.Sprintf("%s has no rule, and %s in the cluster", what, stored)}
	}
	return []string{fmt.Sprintf("%s has the rule %s, and %s in the cluster", what, own, stored)}
}

// ruled compares the configuration's rules with the stored ones.
func (j *judge) ruled(home, own, stored string) {
	if own == "" || stored == "" || own == stored {
		return
	}
	j.add(Problem{Shard: home, Kind: ErrMismatch, Reason: "the configuration places rows otherwise than the cluster does: " + strings.Join(RulesDiffer(own, stored), "; "),
		Hint: "give every proxy the tables, keys, schemas and functions of the cluster's rules, or store those of this configuration: \"shardproxy init --rules\""})
}

// storeRules stores the configuration's rules where there are none.
func (w *writer) storeRules(ctx context.Context) error {
	if w.options.Rules == "" || w.view.rules != "" || w.way[len(w.way)-1].version < rulesVersion {
		return nil
	}
	if !w.options.DryRun {
		err := within(ctx, w.view.conns[0], beginWrite, func(tx pgx.Tx) error { return writeRules(ctx, tx, w.options.Rules, w.report.Map.Epoch()) })
		if err != nil {
			return w.failed(0, "store the rules", err)
		}
	}
	w.did(0, "stored the rules by which rows are placed")
	return nil
}
