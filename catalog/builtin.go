package catalog

import "strings"

// builtin is what we know of PostgreSQL's own functions beyond their declared
// volatility. The names are those of versions 13 to 18.

// localPrefixes begin the names of functions whose answer belongs to one node
// or session.
var localPrefixes = []string{
	"pg_stat_get_", "pg_control_", "pg_current_", "pg_last_", "pg_ls_", "pg_read_", "pg_wal", "pg_get_wal_",
	"pg_lock", "pg_hba_", "pg_ident_", "pg_show_", "pg_replication_", "pg_logical_", "pg_get_replication_",
	"pg_stat_", "txid_", "inet_", "pg_get_backend_", "pg_get_shmem_", "pg_get_aios", "pg_prepared_", "pg_wait_",
}

// localNames are such functions whose names share no prefix.
var localNames = []string{
	"pg_is_in_recovery", "pg_is_in_backup", "pg_backup_start_time", "pg_backend_pid", "pg_postmaster_start_time",
	"pg_conf_load_time", "pg_blocking_pids", "pg_safe_snapshot_blocking_pids",
	"pg_isolation_test_session_is_blocked", "pg_cursor", "pg_listening_channels", "pg_config", "pg_settings_get_flags", "pg_available_wal_summaries",
	"pg_xact_status", "pg_xact_commit_timestamp", "pg_xact_commit_timestamp_origin", "pg_snapshot_xip",
	"pg_notification_queue_usage", "pg_jit_available", "pg_export_snapshot", "pg_trigger_depth",
	"pg_tablespace_location", "pg_available_extensions", "pg_available_extension_versions",
	"pg_extension_update_paths", "pg_timezone_abbrevs", "pg_timezone_names", "pg_numa_available",
	"pg_get_loaded_modules", "age", "mxid_age", "pg_get_multixact_members", "pg_sequence_last_value",
	"pg_get_sequence_data",
}

// harmlessNames are volatile but read only and alike on every node.
var harmlessNames = []string{
	"random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "clock_timestamp", "timeofday",
	"pg_sleep", "pg_sleep_for", "pg_sleep_until", "current_query", "pg_partition_tree", "pg_partition_ancestors",
	"bernoulli", "system", // TABLESAMPLE
}

// unsafeNames change their session, or run SQL given as text, whatever their
// volatility.
var unsafeNames = []string{
	"set_config", "setseed", "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "ts_stat",
	"pg_start_backup", "pg_stop_backup", "pg_backup_start", "pg_backup_stop",
	"pg_replication_origin_session_setup", "pg_replication_origin_session_reset",
	"pg_replication_origin_xact_setup", "pg_replication_origin_xact_reset",
	"pg_create_physical_replication_slot", "pg_create_logical_replication_slot",
	"pg_copy_physical_replication_slot", "pg_copy_logical_replication_slot",
	"pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared",
	"pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all",
}

// trustedExtensions hold functions that look into the server and leave the
// session alone.
var trustedExtensions = []string{
	"pg_stat_statements", "pg_buffercache", "pg_visibility", "pg_freespacemap", "pgstattuple", "pageinspect",
	"amcheck", "pgrowlocks", "pg_prewarm", "pg_walinspect", "uuid-ossp", "pgcrypto",
}

// harmlessExtensionFunctions are volatile, read only and alike on every node;
// by extension.
var harmlessExtensionFunctions = map[string][]string{
	"uuid-ossp": {"uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4"},
	"pgcrypto": {"gen_random_bytes", "gen_random_uuid", "gen_salt", "pgp_sym_encrypt", "pgp_sym_encrypt_bytea",
		"pgp_pub_encrypt", "pgp_pub_encrypt_bytea"},
	"tablefunc": {"normal_rand"},
}

// unsafeExtensionFunctions run SQL given as text although they are declared
// stable or immutable; by extension.
var unsafeExtensionFunctions = map[string][]string{
	"tablefunc": {"crosstab", "crosstab2", "crosstab3", "crosstab4", "connectby"},
	"xml2":      {"xpath_table"},
	"pg_trgm":   {"set_limit"},
}

// LocalSetting says whether a setting's value belongs to the node it is shown
// on, so that SHOW must go to the primary. Settings that a session carries with
// it are not local.
func LocalSetting(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "all", "transaction_read_only", "in_hot_standby", "hot_standby", "hot_standby_feedback",
		"max_standby_streaming_delay", "max_standby_archive_delay", "cluster_name", "port",
		"listen_addresses", "unix_socket_directories", "data_directory", "config_file", "hba_file",
		"ident_file", "external_pid_file", "primary_conninfo", "primary_slot_name",
		"synchronous_standby_names", "promote_trigger_file", "restore_command", "event_source",
		"max_connections", "superuser_reserved_connections", "reserved_connections", "shared_buffers",
		"data_directory_mode", "fsync", "full_page_writes", "synchronized_standby_slots",
		"sync_replication_slots", "bonjour", "bonjour_name", "update_process_title", "jit_provider",
		"shared_preload_libraries", "shared_memory_size", "shared_memory_size_in_huge_pages", "huge_pages",
		"huge_pages_status", "debug_assertions", "num_os_semaphores":
		return true
	}
	for _, p := range []string{"wal_", "archive_", "recovery_", "ssl", "logging_", "log_directory", "log_file",
		"log_destination", "syslog_", "max_wal", "min_wal", "checkpoint_", "bgwriter_", "autovacuum",
		"max_replication_slots", "max_slot_wal", "max_worker_processes", "max_logical_", "max_prepared_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
