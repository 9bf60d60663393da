package query

// Statement is what one client text says: one or more commands that
// PostgreSQL runs in order. It is immutable once returned and may be shared.
type Statement struct {
	// Commands holds one element per command; empty for an empty text.
	Commands []Command
	// Opaque is set when the text could not be understood (newer grammar, too
	// large, too deep, a syntax error that the server shall report itself).
	// Nothing may be assumed of it: it goes to the primary and its effects on
	// the session are unknown.
	Opaque bool
	// Syntax is the error of a text that is Opaque because the grammar does not know it, nil for others.
	Syntax *SyntaxError
	// Hint is what a leading /* shardproxy: route=... */ comment asks for.
	Hint Route
}

// SyntaxError is what PostgreSQL's grammar says of a text.
type SyntaxError struct {
	Message  string // as the server would say it
	Position int    // in characters, from 1
}

// Route is what a client asks about the node its statement runs on.
type Route uint8

// The routes a client may ask for.
const (
	RouteUnset Route = iota
	RouteAuto
	RoutePrimary
	RouteReplica
	// RouteInvalid: the client asks for something that there is not.
	RouteInvalid
)

// Kind says what a command does as far as a session must know.
type Kind uint8

// The kinds of commands. KindOther is everything that has no kind of its own:
// it is not a read and its effects are in Command.Effects.
const (
	KindOther          Kind = iota
	KindSelect              // SELECT, VALUES, TABLE, also with CTEs; see Command.Reads
	KindDML                 // INSERT, UPDATE, DELETE, MERGE
	KindExplain             // EXPLAIN; of what, is in Reads and Effects
	KindShow                // SHOW
	KindCopyTo              // COPY ... TO STDOUT
	KindCopyFrom            // COPY ... FROM STDIN
	KindBegin               // BEGIN, START TRANSACTION
	KindCommit              // COMMIT, END (also AND CHAIN)
	KindRollback            // ROLLBACK, ABORT (also AND CHAIN)
	KindSavepoint           // SAVEPOINT
	KindRelease             // RELEASE SAVEPOINT
	KindRollbackTo          // ROLLBACK TO SAVEPOINT
	KindPrepareTx           // PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED
	KindSetTransaction      // SET TRANSACTION
	KindSet                 // SET [SESSION|LOCAL], SET SESSION CHARACTERISTICS, SET ROLE, SET SESSION AUTHORIZATION
	KindReset               // RESET name, RESET ALL
	KindPrepare             // PREPARE name AS ...
	KindExecute             // EXECUTE name (...)
	KindDeallocate          // DEALLOCATE name | ALL
	KindDeclare             // DECLARE CURSOR
	KindFetch               // FETCH, MOVE
	KindClose               // CLOSE name | ALL
	KindListen              // LISTEN
	KindUnlisten            // UNLISTEN channel | *
	KindNotify              // NOTIFY
	KindDiscard             // DISCARD ALL | PLANS | SEQUENCES | TEMP
	KindDDL                 // changes the catalog
)

// Effect is a set of things a command may leave behind in its server session.
type Effect uint32

// The effects. A command with no effect leaves nothing behind that the next
// user of the server connection could notice.
const (
	// EffectSetting: exactly the settings named in Command.Setting change.
	EffectSetting Effect = 1 << iota
	// EffectTemp: a temporary object is made or dropped.
	EffectTemp
	// EffectAdvisory: a session-level advisory lock may be taken or released.
	EffectAdvisory
	// EffectHoldCursor: DECLARE ... WITH HOLD.
	EffectHoldCursor
	// EffectPrepared: an SQL-level prepared statement is made or dropped.
	EffectPrepared
	// EffectListen: LISTEN or UNLISTEN.
	EffectListen
	// EffectSequenceRead: currval or lastval: depends on what this session did before.
	EffectSequenceRead
	// EffectSequenceWrite: nextval or setval is called by name in the text.
	EffectSequenceWrite
	// EffectUnknown: DO, CALL, LOAD, set_config with arguments that are not
	// constants, setseed, anything that may change session state unseen.
	EffectUnknown
	// EffectCatalog: types, tables, functions or their rights change, for all.
	EffectCatalog
	// EffectPreparedRead: EXECUTE anywhere, or the view of the session's
	// prepared statements: depends on their names.
	EffectPreparedRead
)

// Command is one command of a text.
type Command struct {
	Kind    Kind
	Effects Effect
	// Start and End are the command's byte span in the client's text, without
	// the semicolon.
	Start, End int
	// Reads is set when the command itself writes nothing and takes no row
	// locks: no INSERT, UPDATE, DELETE or MERGE also not in a CTE, no FOR
	// UPDATE/SHARE, no SELECT INTO, EXPLAIN without ANALYZE (or ANALYZE of a
	// command that reads). It is a proven read only if the catalog also vouches
	// for every element of Functions, Operators and Relations.
	Reads bool
	// Functions, Operators and Relations name everything the command refers to,
	// as written, each once, sorted.
	Functions []Name
	Operators []Name
	Relations []Name
	// Types names the types that casts, literals and column definitions name,
	// those in schema pg_catalog left out.
	Types []Name
	// Writes names the relations that an INSERT, UPDATE, DELETE, MERGE, COPY
	// FROM or TRUNCATE anywhere in the command writes to. They are also in Relations.
	Writes []Name
	// Attributes holds each b of a.b and (a).b: PostgreSQL reads these as a
	// call b(a) when a has no such column but a function b takes a's row type.
	Attributes []string
	// SettingsRead names the settings that current_setting is called for; ""
	// stands for one whose name is not a constant. When it is not empty the
	// plan depends on the text's literals.
	SettingsRead []string
	// Settings describes SET, RESET, and a SELECT that consists only of
	// set_config calls with constant arguments (one Setting each). A set_config
	// with the constants name and is_local = true and a value that is no
	// constant is listed too, without IsLiteral.
	Settings []Setting
	// Target is the name a PREPARE, EXECUTE, DEALLOCATE, SAVEPOINT, RELEASE,
	// ROLLBACK TO, DECLARE, FETCH, CLOSE, LISTEN, UNLISTEN, NOTIFY refers to;
	// empty with All for DEALLOCATE ALL, CLOSE ALL, UNLISTEN *. For DISCARD it
	// is "ALL", "PLANS", "SEQUENCES" or "TEMP"; for SHOW the setting's name.
	Target string
	All    bool
	// TargetStart and TargetEnd are the byte span of Target in the text (0,0
	// when there is none).
	TargetStart, TargetEnd int
	// Chain is set for COMMIT/ROLLBACK AND CHAIN.
	Chain bool
	// Locks is set for LOCK, which PostgreSQL refuses outside of transaction blocks.
	Locks bool
	// Tx holds the modes of BEGIN, START TRANSACTION and SET TRANSACTION.
	Tx TxModes
	// Body is the byte span of the prepared statement in PREPARE ... AS body,
	// and Reads/Effects/Functions describe that body (with EffectPrepared added).
	BodyStart, BodyEnd int
	// ParamTypes is the byte span of the parenthesised type list of PREPARE,
	// without the parentheses; 0,0 when there is none.
	ParamTypesStart, ParamTypesEnd int
}

// TxModes are the transaction modes a command names.
type TxModes struct {
	Isolation  string // "", "serializable", "repeatable read", "read committed", "read uncommitted"
	ReadOnly   bool
	ReadWrite  bool
	Deferrable bool
}

// Name is a possibly qualified identifier after PostgreSQL's case folding.
type Name struct {
	Schema string // empty when not qualified
	Name   string
	// Args is the number of arguments of a function call (-1: unknown).
	Args int
}

// Setting is one change of one run-time setting.
type Setting struct {
	// Name is lower-cased; "role", "session_authorization", "timezone",
	// "client_encoding", "search_path" and so on also for the special syntaxes.
	Name string
	// Value is the text to the right of TO or =, as the client wrote it, and
	// never empty unless Default or ResetAll is set.
	Value string
	// Literal holds the value as a plain string when it is one constant (SET x
	// = 'v', SET x = 5, SET x TO ident, set_config('x','v',false)); IsLiteral
	// tells an empty string from none.
	Literal   string
	IsLiteral bool
	// Flat is what set_config would have to be given for the same effect: the
	// constants joined as PostgreSQL joins them, the names of a list setting
	// such as search_path quoted. Valid only when IsFlat is set.
	Flat   string
	IsFlat bool
	// Local: SET LOCAL, set_config(..., true), and the settings that end with
	// their transaction however they are set (transaction_isolation,
	// transaction_read_only, transaction_deferrable).
	Local    bool
	Default  bool // SET x TO DEFAULT, RESET x
	ResetAll bool // RESET ALL
}
