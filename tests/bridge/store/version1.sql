-- A store as version 1 of the schema left it.
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE alarm(
        cycler TEXT NOT NULL, channel INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY(cycler, channel, name)) WITHOUT ROWID;
INSERT INTO "alarm" VALUES('arbin1',7,'stop_failed','{"name":"stop_failed"}');
CREATE TABLE audit(seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL, hash TEXT NOT NULL);
INSERT INTO "audit" VALUES(1,'{"after":null,"before":null,"channel":7,"code":0,"cycler":"arbin1","id":"a","message":null,"outcome":"succeeded","reason":null,"received_at":null,"request":null,"ts":"2026-01-02T03:04:05.678Z","what":"start","who":"ann"}','b216edbc5b6fb89719bd0498f579247af87622812e171ac48243cf00c1d3e09e');
INSERT INTO "audit" VALUES(2,'{"after":null,"before":null,"channel":7,"code":0,"cycler":"arbin1","id":"a","message":null,"outcome":"succeeded","reason":null,"received_at":null,"request":null,"ts":"2026-01-02T03:04:05.678Z","what":"stop","who":"ann"}','0e6c211ab5da9bac5103e383f7f2bef832a9f5eff03b3cc39e6750be420adfd3');
CREATE TABLE command(
        number INTEGER PRIMARY KEY, cycler TEXT NOT NULL, channel INTEGER NOT NULL, verb TEXT NOT NULL,
        id TEXT NOT NULL, digest TEXT NOT NULL, received_at TEXT NOT NULL, user TEXT, channels TEXT NOT NULL,
        request TEXT NOT NULL, keep INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0,
        UNIQUE(cycler, channel, verb, id));
INSERT INTO "command" VALUES(1,'arbin1',7,'start','kept','digest of kept','2026-01-02T03:04:05.678Z','ann','[7]','{}',1,1);
INSERT INTO "command" VALUES(2,'arbin1',7,'start','open','digest of open','2026-01-02T03:04:05.678Z','ann','[7]','{}',1,0);
CREATE TABLE lease(
        cycler TEXT NOT NULL, channel INTEGER NOT NULL, lease_id TEXT NOT NULL, holder TEXT,
        granted_at TEXT NOT NULL, expires_at TEXT NOT NULL, ttl_s REAL NOT NULL, on_expiry TEXT NOT NULL,
        state TEXT NOT NULL, PRIMARY KEY(cycler, channel)) WITHOUT ROWID;
INSERT INTO "lease" VALUES('arbin1',7,'l1','ann','2026-01-02T03:04:05.678Z','2026-01-02T03:04:10.678Z',5.0,'"stop"','running');
CREATE TABLE probe(number INTEGER PRIMARY KEY, count INTEGER NOT NULL);
INSERT INTO "probe" VALUES(1,1);
CREATE TABLE result(
        number INTEGER PRIMARY KEY, command INTEGER NOT NULL, channel INTEGER, body TEXT NOT NULL);
INSERT INTO "result" VALUES(1,1,7,'{"outcome":"succeeded"}');
CREATE INDEX command_unfinished ON command(number) WHERE NOT finished;
CREATE INDEX command_finished ON command(received_at) WHERE finished;
CREATE INDEX result_command ON result(command);
CREATE TRIGGER audit_never_deletes BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_never_replaces BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('audit',2);
COMMIT;
