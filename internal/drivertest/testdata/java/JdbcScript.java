import java.math.BigDecimal;
import java.sql.BatchUpdateException;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.UUID;
import org.postgresql.PGConnection;

/** pgjdbc, as its users use it. */
final class JdbcScript extends JdbcStreams {
  public static void main(String[] args) throws Exception {
    LinkedHashMap<String, Transcript.Section> sections = new LinkedHashMap<>();
    sections.put("connection", JdbcScript::connection);
    sections.put("types", JdbcScript::types);
    sections.put("prepared", JdbcScript::prepared);
    sections.put("prepared alter", JdbcScript::preparedAlter);
    sections.put("query modes", JdbcScript::queryModes);
    sections.put("transactions", JdbcScript::transactions);
    sections.put("autosave", JdbcScript::autosave);
    sections.put("errors", JdbcScript::errors);
    sections.put("batches", JdbcScript::batches);
    sections.put("metadata", JdbcScript::metadata);
    sections.put("calls", JdbcScript::calls);
    sections.put("copy", JdbcStreams::copy);
    sections.put("cancel", JdbcStreams::cancel);
    sections.put("listen", JdbcStreams::listen);
    sections.put("churn", JdbcStreams::churn);
    sections.put("fetch size", JdbcStreams::fetchSize);
    sections.put("large objects", JdbcStreams::largeObjects);
    sections.put("large", JdbcStreams::large);
    sections.put("session state", JdbcStreams::sessionState);
    Transcript.run(sections, args);
  }

  static void connection() throws Exception {
    try (Connection c = Transcript.connect()) {
      DatabaseMetaData m = c.getMetaData();
      Transcript.say(m.getDatabaseProductVersion(), m.getUserName(), c.getSchema(), c.isReadOnly(), c.getTransactionIsolation(), c.isValid(5));
      Transcript.say(c.unwrap(PGConnection.class).getParameterStatus("TimeZone"), c.unwrap(PGConnection.class).getParameterStatus("client_encoding"),
          c.unwrap(PGConnection.class).getParameterStatus("is_superuser"));
      Transcript.say(Transcript.rows(c, "SELECT current_user::text, 1 + 1"));
      Transcript.say(Transcript.rows(c, "SHOW extra_float_digits"), Transcript.rows(c, "SHOW application_name"));
    }
    for (String wrong : new String[] {"password=wrong", "user=nobody_here", "database=no_such_database", "sslrootcert=" + System.getenv("WRONG_CA")}) {
      Transcript.refused(wrong.substring(0, 8), () -> Transcript.connect(wrong));
    }
    try (Connection c = Transcript.connect("ApplicationName=mine", "currentSchema=a,b", "options=-c statement_timeout=1234", "readOnly=true", "targetServerType=primary")) {
      for (String name : new String[] {"application_name", "search_path", "statement_timeout"}) {
        Transcript.say(Transcript.rows(c, "SHOW " + name));
      }
      Transcript.say(c.isReadOnly(), Transcript.rows(c, "SHOW transaction_read_only"));
    }
  }

  static void types() throws Exception {
    OffsetDateTime at = OffsetDateTime.of(2024, 7, 1, 12, 0, 0, 123456000, ZoneOffset.ofHours(2));
    Object[][] values = {
      {"boolean", true}, {"int2", -32768}, {"int4", Integer.MAX_VALUE}, {"int8", Long.MIN_VALUE}, {"numeric", new BigDecimal("-12345678901234567890.123456789")},
      {"float4", 1.5f}, {"float8", 0.1}, {"float8", Double.POSITIVE_INFINITY}, {"float8", Double.NaN}, {"text", ""},
      {"text", "h\u00e9llo \u4e16\u754c \uD83D\uDE00 'quoted' \\ $1 ?"}, {"char(5)", "abc"}, {"bytea", new byte[] {0, 1, -2, -1}}, {"date", LocalDate.of(2024, 2, 29)},
      {"timestamp", LocalDateTime.of(1999, 12, 31, 23, 59, 59, 123456000)}, {"timestamptz", at}, {"uuid", UUID.fromString("12345678-1234-5678-1234-567812345678")},
      {"int4[]", new Integer[] {1, 2, 3}}, {"text[]", new String[] {"a", null, "q\"\\,{}"}}, {"text", null}, {"int4", null},
    };
    for (String transfer : new String[] {"binaryTransfer=true", "binaryTransfer=false"}) {
      try (Connection c = Transcript.connect(transfer, "prepareThreshold=2")) {
        for (Object[] v : values) {
          try (PreparedStatement p = c.prepareStatement("SELECT ?::" + v[0] + " AS v, pg_typeof(?::" + v[0] + ")::text")) {
            for (int round = 0; round < 3; round++) { // the second time prepared, then binary
              for (int i = 1; i <= 2; i++) {
                if (v[1] instanceof Object[]) {
                  p.setArray(i, c.createArrayOf(v[1] instanceof String[] ? "text" : "int4", (Object[]) v[1]));
                } else {
                  p.setObject(i, v[1]);
                }
              }
              try (ResultSet r = p.executeQuery()) {
                r.next();
                Object got = v[1] instanceof OffsetDateTime ? r.getObject(1, OffsetDateTime.class) : r.getObject(1);
                Transcript.say(v[0], got, r.getString(2), r.getMetaData().getColumnTypeName(1), r.getMetaData().getPrecision(1));
              }
            }
          }
        }
      }
    }
  }

  static void prepared() throws Exception {
    try (Connection first = Transcript.connect("prepareThreshold=2"); Connection second = Transcript.connect("prepareThreshold=1", "preparedStatementCacheQueries=5")) {
      Transcript.exec(first, "CREATE TABLE p AS SELECT i AS id, 'v' || i AS v FROM generate_series(1, 100) i");
      Transcript.exec(second, "COMMENT ON TABLE p IS 'seen'"); // it sees what was written before its own write
      first.setAutoCommit(false);
      try (PreparedStatement a = first.prepareStatement("SELECT v FROM p WHERE id = ?"); PreparedStatement b = second.prepareStatement("SELECT v FROM p WHERE id = ?");
          PreparedStatement u = first.prepareStatement("UPDATE p SET v = v WHERE id = ?")) {
        int wrong = 0;
        for (int i = 1; i <= 50; i++) {
          for (PreparedStatement p : new PreparedStatement[] {a, b}) {
            p.setInt(1, i);
            try (ResultSet r = p.executeQuery()) {
              wrong += r.next() && r.getString(1).equals("v" + i) ? 0 : 1;
            }
          }
          u.setInt(1, i);
          u.executeUpdate();
          first.commit();
        }
        Transcript.say("wrong", wrong);
      }
      // More statements than the driver's cache holds: it closes them.
      int total = 0;
      for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 300; i++) {
          try (PreparedStatement p = second.prepareStatement("SELECT ?::int + " + i)) {
            p.setInt(1, round);
            try (ResultSet r = p.executeQuery()) {
              r.next();
              total += r.getInt(1);
            }
          }
        }
      }
      Transcript.say("total", total);
      // One text with parameters of several types.
      try (PreparedStatement p = second.prepareStatement("SELECT pg_typeof(?)::text")) {
        for (Object v : new Object[] {1, 2L, "x", 1.5, 1, true}) {
          p.setObject(1, v);
          try (ResultSet r = p.executeQuery()) {
            Transcript.say(Transcript.rows(r));
          }
        }
      }
    }
  }

  static void preparedAlter() throws Exception {
    for (boolean transaction : new boolean[] {false, true}) {
      try (Connection c = Transcript.connect("prepareThreshold=1")) {
        Transcript.exec(c, "DROP TABLE IF EXISTS pa; CREATE TABLE pa (id int, v text); INSERT INTO pa VALUES (1, 'one')");
        c.setAutoCommit(!transaction);
        try (PreparedStatement star = c.prepareStatement("SELECT * FROM pa WHERE id = 1"); PreparedStatement named = c.prepareStatement("SELECT id, v FROM pa")) {
          for (String change : new String[] {"SELECT 1", "SELECT 1", "ALTER TABLE pa ADD COLUMN w int DEFAULT 7", "ALTER TABLE pa ALTER v TYPE varchar(20)", "ALTER TABLE pa DROP COLUMN w"}) {
            Transcript.exec(c, change);
            if (transaction) {
              c.commit();
            }
            for (PreparedStatement p : new PreparedStatement[] {star, named}) {
              for (int round = 0; round < 2; round++) {
                try (ResultSet r = p.executeQuery()) {
                  Transcript.say(Transcript.rows(r));
                } catch (SQLException e) {
                  Transcript.say(e.getSQLState(), e.getMessage());
                  if (transaction) {
                    c.rollback();
                  }
                }
              }
            }
            if (transaction) {
              c.commit();
            }
          }
        }
      }
    }
  }

  static void queryModes() throws Exception {
    for (String mode : new String[] {"extended", "extendedForPrepared", "extendedCacheEverything", "simple"}) {
      try (Connection c = Transcript.connect("preferQueryMode=" + mode, "prepareThreshold=3")) {
        Transcript.exec(c, "DROP TABLE IF EXISTS qm; CREATE TABLE qm (id int, v text)");
        for (int i = 0; i < 10; i++) {
          try (PreparedStatement p = c.prepareStatement("INSERT INTO qm VALUES (?, ?) RETURNING id")) {
            p.setInt(1, i);
            p.setString(2, "it's \\ " + i);
            try (ResultSet r = p.executeQuery()) {
              r.next();
            }
          }
          Transcript.say(mode, Transcript.rows(c, "SELECT count(*), max(v) FROM qm"));
        }
        try (Statement s = c.createStatement()) {
          boolean rows = s.execute("SELECT 1; INSERT INTO qm VALUES (100, 'x'), (101, 'y'); SELECT 2, 3");
          for (int i = 0; i < 3; i++) {
            Transcript.say(rows, rows ? Transcript.rows(s.getResultSet()) : s.getUpdateCount());
            rows = s.getMoreResults();
          }
        }
        Transcript.refused("several", () -> c.createStatement().execute("INSERT INTO qm VALUES (102, 'z'); SELECT 1/0"));
        Transcript.say(Transcript.rows(c, "SELECT count(*) FROM qm"));
      }
    }
  }

  static void transactions() throws Exception {
    try (Connection c = Transcript.connect()) {
      Transcript.exec(c, "CREATE TABLE tx (id int PRIMARY KEY)");
      c.setAutoCommit(false);
      Transcript.exec(c, "INSERT INTO tx VALUES (1)");
      Savepoint a = c.setSavepoint();
      Transcript.refused("duplicate", () -> c.createStatement().execute("INSERT INTO tx VALUES (1)"));
      Transcript.refused("after it", () -> c.createStatement().execute("SELECT 1"));
      c.rollback(a);
      Savepoint named = c.setSavepoint("named one");
      Transcript.exec(c, "INSERT INTO tx VALUES (2)");
      c.releaseSavepoint(named);
      c.commit();
      Transcript.exec(c, "INSERT INTO tx VALUES (3)");
      c.rollback();
      for (int level : new int[] {Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_READ_COMMITTED}) {
        c.setTransactionIsolation(level);
        c.setReadOnly(level == Connection.TRANSACTION_SERIALIZABLE);
        Transcript.say(Transcript.rows(c, "SHOW transaction_isolation"), Transcript.rows(c, "SHOW transaction_read_only"));
        if (c.isReadOnly()) {
          Transcript.refused("write", () -> c.createStatement().execute("INSERT INTO tx VALUES (9)"));
        }
        c.rollback();
      }
      Transcript.refused("division", () -> c.createStatement().execute("SELECT 1/0"));
      c.commit(); // of a failed transaction: the driver does not mind
      Transcript.exec(c, "CREATE TABLE child (parent int REFERENCES tx DEFERRABLE INITIALLY DEFERRED)");
      c.commit();
      Transcript.exec(c, "INSERT INTO child VALUES (99)");
      Transcript.refused("commit", () -> { c.commit(); return null; });
      Transcript.say(Transcript.rows(c, "SELECT array_agg(id ORDER BY id)::text FROM tx"));
      c.commit();
    }
  }

  static void autosave() throws Exception {
    for (String mode : new String[] {"always", "conservative"}) {
      try (Connection c = Transcript.connect("autosave=" + mode, "prepareThreshold=1")) {
        Transcript.exec(c, "DROP TABLE IF EXISTS au; CREATE TABLE au (id int PRIMARY KEY)");
        c.setAutoCommit(false);
        try (PreparedStatement p = c.prepareStatement("INSERT INTO au VALUES (?)")) {
          for (int i : new int[] {1, 2, 1, 3}) {
            p.setInt(1, i);
            try {
              p.executeUpdate();
            } catch (SQLException e) {
              Transcript.say(mode, e.getSQLState());
              if (mode.equals("conservative")) {
                c.rollback();
              }
            }
          }
        }
        c.commit();
        Transcript.say(mode, Transcript.rows(c, "SELECT array_agg(id ORDER BY id)::text FROM au"));
        c.commit();
      }
    }
  }

  static void errors() throws Exception {
    try (Connection c = Transcript.connect("prepareThreshold=1", "logServerErrorDetail=true")) {
      Transcript.exec(c, "CREATE TABLE er (id int PRIMARY KEY, v int NOT NULL)");
      for (String sql : new String[] {"SELEC 1", "SELECT 1/0", "SELECT * FROM missing", "INSERT INTO er VALUES (1, NULL)",
          "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'XY123', DETAIL = 'd', HINT = 'h'; END $$", "VACUUM missing"}) {
        Transcript.refused(sql, () -> c.createStatement().execute(sql));
        Transcript.refused(sql, () -> c.prepareStatement(sql).execute());
        Transcript.say(Transcript.rows(c, "SELECT count(*) FROM er"));
      }
      try (Statement s = c.createStatement()) {
        s.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$");
        for (SQLWarning w = s.getWarnings(); w != null; w = w.getNextWarning()) {
          Transcript.say(w.getSQLState(), w.getMessage());
        }
        Transcript.say(s.execute(""), s.getUpdateCount());
        s.setQueryTimeout(1);
        Transcript.refused("query timeout", () -> s.execute("SELECT pg_sleep(20)"));
        s.setQueryTimeout(0);
      }
      Transcript.say(Transcript.rows(c, "SELECT 'still here'"));
    }
  }

  static void batches() throws Exception {
    for (String rewrite : new String[] {"reWriteBatchedInserts=false", "reWriteBatchedInserts=true"}) {
      try (Connection c = Transcript.connect(rewrite)) {
        Transcript.exec(c, "DROP TABLE IF EXISTS ba; CREATE TABLE ba (id serial PRIMARY KEY, v int)");
        for (boolean auto : new boolean[] {true, false}) {
          c.setAutoCommit(auto);
          try (PreparedStatement p = c.prepareStatement("INSERT INTO ba (v) VALUES (?)")) {
            for (int i = 0; i < 1000; i++) {
              p.setInt(1, i);
              p.addBatch();
            }
            Transcript.say(rewrite, p.executeBatch().length);
          }
          try (PreparedStatement p = c.prepareStatement("INSERT INTO ba (id, v) VALUES (?, ?)")) {
            for (int i : new int[] {5000, 5001, 1, 5002}) {
              p.setInt(1, i + (auto ? 0 : 1000 * (i > 1 ? 1 : 0)));
              p.setInt(2, i);
              p.addBatch();
            }
            try {
              p.executeBatch();
              Transcript.say("FAIL: no error");
            } catch (BatchUpdateException e) {
              Transcript.say(e.getSQLState(), Arrays.toString(e.getUpdateCounts()));
            }
            if (!auto) {
              c.rollback();
            }
          }
          try (PreparedStatement p = c.prepareStatement("INSERT INTO ba (v) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 5; i++) {
              p.setInt(1, i);
              p.addBatch();
            }
            p.executeBatch();
            Transcript.say("keys", Transcript.rows(p.getGeneratedKeys()).size());
          }
          try (Statement s = c.createStatement()) {
            s.addBatch("INSERT INTO ba (v) VALUES (7)");
            s.addBatch("UPDATE ba SET v = v + 1 WHERE v = 7");
            s.addBatch("DELETE FROM ba WHERE v = 8");
            Transcript.say(Arrays.toString(s.executeBatch()));
          }
          if (!auto) {
            c.commit();
          }
          Transcript.say(Transcript.rows(c, "SELECT count(*), sum(v) FROM ba"));
        }
      }
    }
  }

  static void metadata() throws Exception {
    try (Connection c = Transcript.connect()) {
      Transcript.exec(c, "CREATE TABLE md (id int PRIMARY KEY, v varchar(20) DEFAULT 'x', n numeric(10,2)); CREATE INDEX md_v ON md (v)");
      DatabaseMetaData m = c.getMetaData();
      for (ResultSet r : new ResultSet[] {m.getTables(null, "public", "md", null), m.getColumns(null, "public", "md", null), m.getPrimaryKeys(null, "public", "md"),
          m.getIndexInfo(null, "public", "md", false, true)}) {
        List<String> names = new ArrayList<>();
        while (r.next()) {
          names.add(r.getString(3) + "." + r.getString(r.getMetaData().getColumnName(4).equals("TABLE_TYPE") ? 4 : Math.min(6, r.getMetaData().getColumnCount())));
        }
        Transcript.say(names);
        r.close();
      }
      try (PreparedStatement p = c.prepareStatement("SELECT id, v, n FROM md WHERE id = ? AND v LIKE ?")) {
        Transcript.say(p.getParameterMetaData().getParameterTypeName(1), p.getParameterMetaData().getParameterTypeName(2), p.getMetaData().getColumnTypeName(3),
            p.getMetaData().getScale(3), p.getMetaData().isNullable(1));
      }
      // An updatable result: the driver reads the table's keys and writes by them.
      try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
        s.execute("INSERT INTO md VALUES (1, 'a', 1.5), (2, 'b', 2.5)");
        ResultSet r = s.executeQuery("SELECT id, v, n FROM md ORDER BY id");
        r.absolute(2);
        r.updateString(2, "changed");
        r.updateRow();
        r.moveToInsertRow();
        r.updateInt(1, 3);
        r.insertRow();
      }
      Transcript.say(Transcript.rows(c, "SELECT * FROM md ORDER BY id"));
    }
  }

  static void calls() throws Exception {
    try (Connection c = Transcript.connect("escapeSyntaxCallMode=callIfNoReturn")) {
      Transcript.exec(c, "CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'");
      Transcript.exec(c, "CREATE FUNCTION refc() RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE r refcursor; BEGIN OPEN r FOR SELECT generate_series(1, 5); RETURN r; END $$");
      Transcript.exec(c, "CREATE PROCEDURE nothing(i int) LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$");
      try (CallableStatement s = c.prepareCall("{? = call twice(?)}")) {
        s.registerOutParameter(1, Types.INTEGER);
        for (int i = 0; i < 8; i++) {
          s.setInt(2, i);
          s.execute();
          Transcript.say(s.getInt(1));
        }
      }
      try (CallableStatement s = c.prepareCall("{call nothing(?)}")) {
        s.setInt(1, 1);
        Transcript.say(s.execute());
      }
      c.setAutoCommit(false);
      try (CallableStatement s = c.prepareCall("{? = call refc()}")) {
        s.registerOutParameter(1, Types.REF_CURSOR);
        s.execute();
        Transcript.say(Transcript.rows((ResultSet) s.getObject(1)));
      }
      c.commit();
    }
  }
}
