package query

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// session takes the small commands that speak to the session itself; false
// when m is none of them.
func (b *builder) session(m proto.Message) bool {
	switch n := m.(type) {
	case *pg.VariableShowStmt:
		b.c.Kind, b.c.Reads, b.c.Target = KindShow, true, strings.ToLower(n.Name)
		b.c.TargetStart, b.c.TargetEnd = b.restAfterVerb()
	case *pg.DeallocateStmt:
		b.c.Kind, b.c.Effects = KindDeallocate, EffectPrepared
		b.lastName(n.Name)
	case *pg.FetchStmt:
		b.c.Kind = KindFetch
		b.lastName(n.Portalname)
	case *pg.ClosePortalStmt:
		b.c.Kind, b.c.Effects = KindClose, EffectHoldCursor
		b.lastName(n.Portalname)
	case *pg.ListenStmt:
		b.c.Kind, b.c.Effects = KindListen, EffectListen
		b.lastName(n.Conditionname)
	case *pg.UnlistenStmt:
		b.c.Kind, b.c.Effects = KindUnlisten, EffectListen
		b.lastName(n.Conditionname)
	case *pg.NotifyStmt:
		b.c.Kind = KindNotify
		b.nameAfterVerb(n.Conditionname)
	case *pg.DiscardStmt:
		b.discard(n)
	default:
		return false
	}
	return true
}

// discard takes DISCARD. ALL is RESET ALL and the end of everything else.
func (b *builder) discard(n *pg.DiscardStmt) {
	b.c.Kind = KindDiscard
	b.c.TargetStart, b.c.TargetEnd = b.restAfterVerb()
	switch n.Target {
	case pg.DiscardMode_DISCARD_PLANS:
		b.c.Target = "PLANS"
	case pg.DiscardMode_DISCARD_SEQUENCES:
		b.c.Target, b.c.Effects = "SEQUENCES", EffectSequenceWrite
	case pg.DiscardMode_DISCARD_TEMP:
		b.c.Target, b.c.Effects = "TEMP", EffectTemp
	default:
		b.c.Target = "ALL"
		b.c.Effects = EffectSetting | EffectTemp | EffectAdvisory | EffectHoldCursor |
			EffectPrepared | EffectListen | EffectSequenceWrite
		b.c.Settings = []Setting{{ResetAll: true}}
	}
}

// transaction takes transaction control.
func (b *builder) transaction(n *pg.TransactionStmt) {
	b.c.Chain = n.Chain
	switch n.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START:
		b.c.Kind, b.c.Tx = KindBegin, txModes(n.Options)
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		b.c.Kind = KindCommit
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		b.c.Kind = KindRollback
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		b.c.Kind = KindSavepoint
		b.lastName(n.SavepointName)
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		b.c.Kind = KindRelease
		b.lastName(n.SavepointName)
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		b.c.Kind = KindRollbackTo
		b.lastName(n.SavepointName)
	case pg.TransactionStmtKind_TRANS_STMT_PREPARE, pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED,
		pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
		b.c.Kind = KindPrepareTx
	default:
		b.c.Effects = EffectUnknown
	}
}

// txModes reads transaction modes; of a mode named twice the last one counts.
func txModes(options []*pg.Node) TxModes {
	var tx TxModes
	for _, o := range options {
		d := o.GetDefElem()
		value, on := constText(d.GetArg())
		switch d.GetDefname() {
		case "transaction_isolation":
			if on {
				tx.Isolation = value
			}
		case "transaction_read_only":
			tx.ReadOnly = value != "0"
			tx.ReadWrite = !tx.ReadOnly
		case "transaction_deferrable":
			tx.Deferrable = value != "0"
		}
	}
	return tx
}

// constText returns a constant as text: a string's value, a number's digits.
func constText(n *pg.Node) (string, bool) {
	return setValueText(n.GetAConst())
}
