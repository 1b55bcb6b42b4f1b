CREATE TABLE backouts (
    backout_id {serial} NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    state VARCHAR(16) NOT NULL,
    plan_json TEXT NOT NULL,
    steps_done INTEGER NOT NULL,
    reason TEXT NOT NULL,
    actor VARCHAR(63) NOT NULL,
    requested_at_us BIGINT NOT NULL,
    changed_at_us BIGINT NOT NULL,
    CONSTRAINT pk_backouts PRIMARY KEY (backout_id),
    CONSTRAINT ck_backouts_state_known CHECK (state IN ('under_way', 'done'))
);

CREATE INDEX ix_backouts_feed_batch ON backouts (feed, batch);

CREATE INDEX ix_backouts_state ON backouts (state);

CREATE TABLE contracts (
    contract_hash VARCHAR(64) NOT NULL,
    contract_json TEXT NOT NULL,
    first_used_at_us BIGINT NOT NULL,
    CONSTRAINT pk_contracts PRIMARY KEY (contract_hash)
);

CREATE TABLE declarations (
    declaration_id {serial} NOT NULL,
    kind VARCHAR(16) NOT NULL,
    name VARCHAR(63) NOT NULL,
    digest VARCHAR(64) NOT NULL,
    fields_json TEXT NOT NULL,
    sources_json TEXT,
    actor VARCHAR(63) NOT NULL,
    recorded_at_us BIGINT NOT NULL,
    table_version BIGINT NOT NULL,
    CONSTRAINT pk_declarations PRIMARY KEY (declaration_id),
    CONSTRAINT ck_declarations_kind_known CHECK (kind IN ('feed', 'model'))
);

CREATE INDEX ix_declarations_kind_name ON declarations (kind, name, declaration_id);

CREATE TABLE drills (
    drill_id {serial} NOT NULL,
    kind VARCHAR(31) NOT NULL,
    model VARCHAR(63) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    measured_duration_us BIGINT,
    evidence_json TEXT NOT NULL,
    explanation TEXT NOT NULL,
    actor VARCHAR(63) NOT NULL,
    started_at_us BIGINT NOT NULL,
    ended_at_us BIGINT NOT NULL,
    expires_at_us BIGINT NOT NULL,
    CONSTRAINT pk_drills PRIMARY KEY (drill_id),
    CONSTRAINT ck_drills_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error'))
);

CREATE INDEX ix_drills_model ON drills (model);

CREATE TABLE event_cursors (
    reader VARCHAR(63) NOT NULL,
    event_id BIGINT NOT NULL,
    CONSTRAINT pk_event_cursors PRIMARY KEY (reader)
);

CREATE TABLE events (
    event_id {serial} NOT NULL,
    at_us BIGINT NOT NULL,
    kind VARCHAR(63) NOT NULL,
    subject VARCHAR(127) NOT NULL,
    actor VARCHAR(63) NOT NULL,
    explanation TEXT NOT NULL,
    digest VARCHAR(64) NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (event_id)
);

CREATE INDEX ix_events_subject ON events (subject);

CREATE TABLE feeds (
    feed VARCHAR(63) NOT NULL,
    state VARCHAR(16) NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL,
    changed_at_us BIGINT NOT NULL,
    CONSTRAINT pk_feeds PRIMARY KEY (feed),
    CONSTRAINT ck_feeds_state_known CHECK (state IN ('flowing', 'suspect', 'refusing'))
);

CREATE TABLE labels (
    prediction_id VARCHAR(64) NOT NULL,
    value {double} NOT NULL,
    source VARCHAR(63) NOT NULL,
    received_at_us BIGINT NOT NULL,
    joined INTEGER NOT NULL,
    server VARCHAR(63),
    segment INTEGER,
    number BIGINT,
    look_at_us BIGINT,
    CONSTRAINT pk_labels PRIMARY KEY (prediction_id),
    CONSTRAINT ck_labels_joined_is_boolean CHECK (joined IN (0, 1))
);

CREATE INDEX ix_labels_look_at_us ON labels (look_at_us, prediction_id) WHERE joined = 0;

CREATE INDEX ix_labels_server_segment_number ON labels (server, segment, number) WHERE joined = 0;

CREATE INDEX ix_labels_source_look_at_us ON labels (source, look_at_us) WHERE joined = 0;

CREATE TABLE leases (
    lease VARCHAR(63) NOT NULL,
    holder VARCHAR(63) NOT NULL,
    epoch BIGINT NOT NULL,
    renewed_at_us BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    CONSTRAINT pk_leases PRIMARY KEY (lease),
    CONSTRAINT ck_leases_epoch_positive CHECK (epoch >= 1)
);

CREATE TABLE log_positions (
    server VARCHAR(63) NOT NULL,
    segment INTEGER NOT NULL,
    collected_bytes BIGINT NOT NULL,
    predictions BIGINT NOT NULL,
    feedback BIGINT NOT NULL,
    rejected_labels BIGINT NOT NULL,
    CONSTRAINT pk_log_positions PRIMARY KEY (server, segment)
);

CREATE TABLE request_counts (
    model VARCHAR(63) NOT NULL,
    version VARCHAR(32) NOT NULL,
    arm VARCHAR(16) NOT NULL,
    result VARCHAR(32) NOT NULL,
    minute_start_us BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    latency_sum_us BIGINT NOT NULL,
    latency_buckets_json TEXT NOT NULL,
    response_buckets_json TEXT,
    reasons_json TEXT,
    CONSTRAINT pk_request_counts PRIMARY KEY (model, version, arm, result, minute_start_us),
    CONSTRAINT ck_request_counts_arm_known CHECK (arm IN ('champion', 'challenger', 'fallback'))
);

CREATE TABLE runtimes (
    runtime VARCHAR(32) NOT NULL,
    packages_json TEXT NOT NULL,
    command TEXT,
    registered_at_us BIGINT NOT NULL,
    CONSTRAINT pk_runtimes PRIMARY KEY (runtime)
);

CREATE TABLE servers (
    server VARCHAR(63) NOT NULL,
    model VARCHAR(63) NOT NULL,
    address VARCHAR(255) NOT NULL,
    log_directory VARCHAR(255) NOT NULL,
    started_at_us BIGINT NOT NULL,
    tagged_from_segment INTEGER,
    boot_id VARCHAR(16),
    release VARCHAR(63),
    host VARCHAR(255),
    private_address VARCHAR(255),
    CONSTRAINT pk_servers PRIMARY KEY (server)
);

CREATE TABLE serving_configs (
    serving_config VARCHAR(32) NOT NULL,
    config_json TEXT NOT NULL,
    registered_at_us BIGINT NOT NULL,
    CONSTRAINT pk_serving_configs PRIMARY KEY (serving_config)
);

CREATE TABLE table_versions (
    table_version {serial} NOT NULL,
    committed_at_us BIGINT NOT NULL,
    reason VARCHAR(64) NOT NULL,
    CONSTRAINT pk_table_versions PRIMARY KEY (table_version)
);

CREATE TABLE traffic_comparisons (
    model VARCHAR(63) NOT NULL,
    version VARCHAR(32) NOT NULL,
    newest_prediction_at_us BIGINT NOT NULL,
    computed_at_us BIGINT NOT NULL,
    comparison_json TEXT NOT NULL,
    CONSTRAINT pk_traffic_comparisons PRIMARY KEY (model)
);

CREATE TABLE violations (
    violation_id {serial} NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER,
    check_name VARCHAR(63) NOT NULL,
    subject VARCHAR(127) NOT NULL,
    level VARCHAR(16) NOT NULL,
    observed {double},
    bound {double},
    explanation TEXT NOT NULL,
    found_at_us BIGINT NOT NULL,
    accepted_at_us BIGINT,
    accepted_by VARCHAR(63),
    CONSTRAINT pk_violations PRIMARY KEY (violation_id),
    CONSTRAINT ck_violations_level_known CHECK (level IN ('warning', 'error', 'critical')),
    CONSTRAINT ck_violations_accepted_at_and_by CHECK ((accepted_at_us IS NULL) = (accepted_by IS NULL))
);

CREATE INDEX ix_violations_feed_batch ON violations (feed, batch);

CREATE TABLE webhooks (
    model VARCHAR(63) NOT NULL,
    webhook VARCHAR(63) NOT NULL,
    webhook_json TEXT NOT NULL,
    declared_at_us BIGINT NOT NULL,
    CONSTRAINT pk_webhooks PRIMARY KEY (model, webhook)
);

CREATE TABLE batches (
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    digest VARCHAR(64) NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    rows_received BIGINT NOT NULL,
    rows_loaded BIGINT NOT NULL,
    rows_quarantined BIGINT NOT NULL,
    event_time_min_us BIGINT,
    event_time_max_us BIGINT,
    table_version {number} NOT NULL,
    source TEXT NOT NULL,
    begun_at_us BIGINT,
    CONSTRAINT pk_batches PRIMARY KEY (feed, batch, epoch),
    CONSTRAINT ck_batches_state_known CHECK (state IN ('published', 'backed_out')),
    CONSTRAINT ck_batches_rows_add_up CHECK (rows_received = rows_loaded + rows_quarantined),
    CONSTRAINT ck_batches_epoch_not_negative CHECK (epoch >= 0),
    CONSTRAINT fk_batches_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_batches_feed_table_version ON batches (feed, table_version);

CREATE UNIQUE INDEX uq_batches_one_live_load ON batches (feed, batch) WHERE state = 'published';

CREATE UNIQUE INDEX uq_batches_one_live_load_of_a_content ON batches (feed, digest) WHERE state = 'published';

CREATE TABLE files (
    path VARCHAR(255) NOT NULL,
    table_name VARCHAR(63) NOT NULL,
    feed VARCHAR(63) NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    event_time_min_us BIGINT,
    event_time_max_us BIGINT,
    added_version {number} NOT NULL,
    removed_version {number},
    CONSTRAINT pk_files PRIMARY KEY (path),
    CONSTRAINT ck_files_removed_after_added CHECK (removed_version IS NULL OR removed_version > added_version),
    CONSTRAINT fk_files_added_version FOREIGN KEY(added_version) REFERENCES table_versions (table_version),
    CONSTRAINT fk_files_removed_version FOREIGN KEY(removed_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_files_removed ON files (table_name, removed_version) WHERE removed_version IS NOT NULL;

CREATE INDEX ix_files_table_name_added_version ON files (table_name, added_version);

CREATE INDEX ix_files_table_name_event_time_max_us ON files (table_name, event_time_max_us);

CREATE TABLE online_definitions (
    aggregate VARCHAR(80) NOT NULL,
    feed VARCHAR(63) NOT NULL,
    definition_json TEXT NOT NULL,
    table_version {number} NOT NULL,
    CONSTRAINT pk_online_definitions PRIMARY KEY (aggregate),
    CONSTRAINT fk_online_definitions_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_online_definitions_feed ON online_definitions (feed);

CREATE TABLE online_features (
    aggregate VARCHAR(80) NOT NULL,
    entity VARCHAR(255) NOT NULL,
    known_at_us BIGINT NOT NULL,
    value {double},
    table_version {number} NOT NULL,
    CONSTRAINT pk_online_features PRIMARY KEY (aggregate, entity, known_at_us),
    CONSTRAINT fk_online_features_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_online_features_aggregate_table_version ON online_features (aggregate, table_version);

CREATE TABLE outcomes (
    outcome_id {serial} NOT NULL,
    prediction_id VARCHAR(64) NOT NULL,
    model VARCHAR(63) NOT NULL,
    version VARCHAR(32) NOT NULL,
    arm VARCHAR(16) NOT NULL,
    rollout_id BIGINT,
    probability {double} NOT NULL,
    label {double} NOT NULL,
    event_time_us BIGINT NOT NULL,
    joined_at_us BIGINT NOT NULL,
    predicted_at_us BIGINT NOT NULL,
    CONSTRAINT pk_outcomes PRIMARY KEY (outcome_id),
    CONSTRAINT ck_outcomes_arm_known CHECK (arm IN ('champion', 'challenger', 'fallback')),
    CONSTRAINT uq_outcomes_prediction_id UNIQUE (prediction_id),
    CONSTRAINT fk_outcomes_prediction_id FOREIGN KEY(prediction_id) REFERENCES labels (prediction_id)
);

CREATE INDEX ix_outcomes_model_predicted_at_us ON outcomes (model, predicted_at_us);

CREATE INDEX ix_outcomes_model_version_predicted_at_us ON outcomes (model, version, predicted_at_us);

CREATE TABLE problems (
    problem_id {serial} NOT NULL,
    model VARCHAR(63) NOT NULL,
    kind VARCHAR(31) NOT NULL,
    subject VARCHAR(127) NOT NULL,
    severity VARCHAR(16) NOT NULL,
    explanation TEXT NOT NULL,
    next_command TEXT NOT NULL,
    found_event_id BIGINT NOT NULL,
    ended_event_id BIGINT,
    CONSTRAINT pk_problems PRIMARY KEY (problem_id),
    CONSTRAINT ck_problems_severity_known CHECK (severity IN ('critical', 'error', 'warning')),
    CONSTRAINT fk_problems_found_event_id FOREIGN KEY(found_event_id) REFERENCES events (event_id),
    CONSTRAINT fk_problems_ended_event_id FOREIGN KEY(ended_event_id) REFERENCES events (event_id),
    CONSTRAINT uq_problems_found_event_id UNIQUE (found_event_id)
);

CREATE UNIQUE INDEX uq_problems_open ON problems (model, kind, subject) WHERE ended_event_id IS NULL;

CREATE TABLE outcome_slices (
    prediction_id VARCHAR(64) NOT NULL,
    slices_json TEXT NOT NULL,
    CONSTRAINT pk_outcome_slices PRIMARY KEY (prediction_id),
    CONSTRAINT fk_outcome_slices_prediction_id FOREIGN KEY(prediction_id) REFERENCES outcomes (prediction_id)
);

CREATE TABLE prediction_files (
    path VARCHAR(255) NOT NULL,
    model VARCHAR(63) NOT NULL,
    server VARCHAR(63) NOT NULL,
    segment INTEGER NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    predicted_at_min_us BIGINT NOT NULL,
    predicted_at_max_us BIGINT NOT NULL,
    record_number_min BIGINT NOT NULL,
    record_number_max BIGINT NOT NULL,
    CONSTRAINT pk_prediction_files PRIMARY KEY (path),
    CONSTRAINT fk_prediction_files_server_segment FOREIGN KEY(server, segment) REFERENCES log_positions (server, segment)
);

CREATE INDEX ix_prediction_files_server_segment ON prediction_files (server, segment);

CREATE TABLE probes (
    server VARCHAR(63) NOT NULL,
    model VARCHAR(63) NOT NULL,
    plan_id BIGINT,
    planned_version VARCHAR(32),
    observed_version VARCHAR(32),
    verdict VARCHAR(16) NOT NULL,
    explanation TEXT NOT NULL,
    probed_at_us BIGINT NOT NULL,
    runtime VARCHAR(32),
    serving_config VARCHAR(32),
    CONSTRAINT pk_probes PRIMARY KEY (server, model),
    CONSTRAINT ck_probes_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_probes_server FOREIGN KEY(server) REFERENCES servers (server)
);

CREATE TABLE shadow_files (
    path VARCHAR(255) NOT NULL,
    model VARCHAR(63) NOT NULL,
    server VARCHAR(63) NOT NULL,
    segment INTEGER NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    predicted_at_min_us BIGINT NOT NULL,
    predicted_at_max_us BIGINT NOT NULL,
    CONSTRAINT pk_shadow_files PRIMARY KEY (path),
    CONSTRAINT fk_shadow_files_server_segment FOREIGN KEY(server, segment) REFERENCES log_positions (server, segment)
);

CREATE INDEX ix_shadow_files_server_segment ON shadow_files (server, segment);

CREATE TABLE snapshots (
    snapshot VARCHAR(32) NOT NULL,
    table_version {number} NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    created_at_us BIGINT NOT NULL,
    begun_at_us BIGINT,
    CONSTRAINT pk_snapshots PRIMARY KEY (snapshot),
    CONSTRAINT fk_snapshots_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_snapshots_table_version ON snapshots (table_version);

CREATE TABLE taints (
    kind VARCHAR(16) NOT NULL,
    subject VARCHAR(63) NOT NULL,
    backout_id {number} NOT NULL,
    tainted_at_us BIGINT NOT NULL,
    row_use VARCHAR(16),
    CONSTRAINT pk_taints PRIMARY KEY (kind, subject, backout_id),
    CONSTRAINT ck_taints_kind_known CHECK (kind IN ('snapshot', 'version')),
    CONSTRAINT fk_taints_backout_id FOREIGN KEY(backout_id) REFERENCES backouts (backout_id)
);

CREATE TABLE admissions (
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    rows_expected BIGINT,
    profile_json TEXT NOT NULL,
    rows_digest VARCHAR(64) NOT NULL,
    values_digest VARCHAR(64) NOT NULL,
    sequence_min BIGINT,
    sequence_max BIGINT,
    sequence_gaps BIGINT,
    group_name VARCHAR(63),
    event_time VARCHAR(63),
    group_period_us BIGINT,
    group_zone VARCHAR(63),
    CONSTRAINT pk_admissions PRIMARY KEY (feed, batch, epoch),
    CONSTRAINT fk_admissions_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch)
);

CREATE INDEX ix_admissions_feed_rows_digest ON admissions (feed, rows_digest);

CREATE INDEX ix_admissions_feed_values_digest ON admissions (feed, values_digest);

CREATE TABLE backout_batches (
    backout_id {number} NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    removed_version {number},
    CONSTRAINT pk_backout_batches PRIMARY KEY (backout_id, feed, batch, epoch),
    CONSTRAINT fk_backout_batches_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_backout_batches_backout_id FOREIGN KEY(backout_id) REFERENCES backouts (backout_id),
    CONSTRAINT fk_backout_batches_removed_version FOREIGN KEY(removed_version) REFERENCES table_versions (table_version)
);

CREATE TABLE batch_references (
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    column_name VARCHAR(63) NOT NULL,
    to_feed VARCHAR(63) NOT NULL,
    to_key VARCHAR(63) NOT NULL,
    to_batch VARCHAR(63) NOT NULL,
    to_epoch INTEGER NOT NULL,
    lookback_start_us BIGINT,
    CONSTRAINT pk_batch_references PRIMARY KEY (feed, batch, epoch, column_name, to_feed, to_key, to_batch, to_epoch),
    CONSTRAINT fk_batch_references_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_batch_references_to_feed_to_batch_to_epoch FOREIGN KEY(to_feed, to_batch, to_epoch) REFERENCES batches (feed, batch, epoch)
);

CREATE INDEX ix_batch_references_to_feed_to_batch_to_epoch ON batch_references (to_feed, to_batch, to_epoch);

CREATE TABLE file_row_groups (
    path VARCHAR(255) NOT NULL,
    row_group INTEGER NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    rows BIGINT NOT NULL,
    removed_version {number},
    CONSTRAINT pk_file_row_groups PRIMARY KEY (path, row_group),
    CONSTRAINT fk_file_row_groups_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_file_row_groups_path FOREIGN KEY(path) REFERENCES files (path),
    CONSTRAINT fk_file_row_groups_removed_version FOREIGN KEY(removed_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_file_row_groups_feed_batch_epoch ON file_row_groups (feed, batch, epoch);

CREATE INDEX ix_file_row_groups_removed ON file_row_groups (removed_version) WHERE removed_version IS NOT NULL;

CREATE TABLE selections (
    snapshot VARCHAR(32) NOT NULL,
    selection_hash VARCHAR(64) NOT NULL,
    seed BIGINT NOT NULL,
    selection_json TEXT NOT NULL,
    removed_rows_json TEXT NOT NULL,
    rows_total BIGINT NOT NULL,
    rows_selected BIGINT NOT NULL,
    CONSTRAINT pk_selections PRIMARY KEY (snapshot, selection_hash),
    CONSTRAINT fk_selections_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE online_withheld_loads (
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    CONSTRAINT pk_online_withheld_loads PRIMARY KEY (feed, batch, epoch),
    CONSTRAINT fk_online_withheld_loads_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch)
);

CREATE TABLE snapshot_incomplete_loads (
    snapshot VARCHAR(32) NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    CONSTRAINT pk_snapshot_incomplete_loads PRIMARY KEY (snapshot, feed, batch, epoch),
    CONSTRAINT fk_snapshot_incomplete_loads_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_snapshot_incomplete_loads_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE snapshot_quality (
    snapshot VARCHAR(32) NOT NULL,
    score {double} NOT NULL,
    complete {double} NOT NULL,
    valid {double} NOT NULL,
    as_expected {double} NOT NULL,
    assessed_at_us BIGINT NOT NULL,
    CONSTRAINT pk_snapshot_quality PRIMARY KEY (snapshot),
    CONSTRAINT fk_snapshot_quality_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE snapshot_slices (
    snapshot VARCHAR(32) NOT NULL,
    selection_hash VARCHAR(64) NOT NULL,
    column_name VARCHAR(63) NOT NULL,
    value VARCHAR(255) NOT NULL,
    rows_total BIGINT NOT NULL,
    rows_selected BIGINT NOT NULL,
    weight_selected {double},
    CONSTRAINT pk_snapshot_slices PRIMARY KEY (snapshot, selection_hash, column_name, value),
    CONSTRAINT fk_snapshot_slices_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE snapshot_tables (
    snapshot VARCHAR(32) NOT NULL,
    table_name VARCHAR(63) NOT NULL,
    rows BIGINT NOT NULL,
    files INTEGER NOT NULL,
    CONSTRAINT pk_snapshot_tables PRIMARY KEY (snapshot, table_name),
    CONSTRAINT fk_snapshot_tables_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE vacuumed_snapshots (
    snapshot VARCHAR(32) NOT NULL,
    vacuumed_at_us BIGINT NOT NULL,
    CONSTRAINT pk_vacuumed_snapshots PRIMARY KEY (snapshot),
    CONSTRAINT fk_vacuumed_snapshots_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE versions (
    version VARCHAR(32) NOT NULL,
    model VARCHAR(63) NOT NULL,
    number INTEGER NOT NULL,
    digest VARCHAR(64) NOT NULL,
    bytes BIGINT NOT NULL,
    snapshot VARCHAR(32) NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    features_hash VARCHAR(64) NOT NULL,
    learner VARCHAR(63) NOT NULL,
    role VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    created_at_us BIGINT NOT NULL,
    begun_at_us BIGINT,
    training_digest VARCHAR(64),
    CONSTRAINT pk_versions PRIMARY KEY (version),
    CONSTRAINT ck_versions_role_known CHECK (role IN ('candidate', 'heuristic')),
    CONSTRAINT ck_versions_state_known CHECK (state IN ('registered', 'qualified', 'refused')),
    CONSTRAINT uq_versions_digest UNIQUE (digest),
    CONSTRAINT fk_versions_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE INDEX ix_versions_snapshot ON versions (snapshot);

CREATE UNIQUE INDEX uq_versions_model_number ON versions (model, number);

CREATE TABLE compatibility_tests (
    version VARCHAR(32) NOT NULL,
    runtime VARCHAR(32) NOT NULL,
    serving_config VARCHAR(32) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    explanation TEXT NOT NULL,
    evaluated_at_us BIGINT NOT NULL,
    CONSTRAINT pk_compatibility_tests PRIMARY KEY (version, runtime, serving_config),
    CONSTRAINT ck_compatibility_tests_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_compatibility_tests_version FOREIGN KEY(version) REFERENCES versions (version),
    CONSTRAINT fk_compatibility_tests_runtime FOREIGN KEY(runtime) REFERENCES runtimes (runtime),
    CONSTRAINT fk_compatibility_tests_serving_config FOREIGN KEY(serving_config) REFERENCES serving_configs (serving_config)
);

CREATE TABLE gate_results (
    gate_result_id {serial} NOT NULL,
    version VARCHAR(32) NOT NULL,
    gate VARCHAR(63) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    observed {double},
    low {double},
    high {double},
    bound {double},
    explanation TEXT NOT NULL,
    evaluated_at_us BIGINT NOT NULL,
    CONSTRAINT pk_gate_results PRIMARY KEY (gate_result_id),
    CONSTRAINT ck_gate_results_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_gate_results_version FOREIGN KEY(version) REFERENCES versions (version)
);

CREATE INDEX ix_gate_results_version ON gate_results (version);

CREATE TABLE rollouts (
    rollout_id {serial} NOT NULL,
    model VARCHAR(63) NOT NULL,
    challenger VARCHAR(32) NOT NULL,
    champion VARCHAR(32),
    state VARCHAR(16) NOT NULL,
    step INTEGER NOT NULL,
    policy_json TEXT NOT NULL,
    started_at_us BIGINT NOT NULL,
    step_started_at_us BIGINT NOT NULL,
    changed_at_us BIGINT NOT NULL,
    reason TEXT NOT NULL,
    actor VARCHAR(63) NOT NULL,
    runtime VARCHAR(32),
    serving_config VARCHAR(32),
    CONSTRAINT pk_rollouts PRIMARY KEY (rollout_id),
    CONSTRAINT ck_rollouts_state_known CHECK (state IN ('pending', 'shadowing', 'canary', 'paused', 'verifying', 'promoted', 'rolling_back', 'rolled_back', 'cancelled')),
    CONSTRAINT ck_rollouts_two_versions CHECK (challenger <> champion),
    CONSTRAINT fk_rollouts_challenger FOREIGN KEY(challenger) REFERENCES versions (version),
    CONSTRAINT fk_rollouts_champion FOREIGN KEY(champion) REFERENCES versions (version),
    CONSTRAINT fk_rollouts_runtime FOREIGN KEY(runtime) REFERENCES runtimes (runtime),
    CONSTRAINT fk_rollouts_serving_config FOREIGN KEY(serving_config) REFERENCES serving_configs (serving_config)
);

CREATE INDEX ix_rollouts_challenger ON rollouts (challenger);

CREATE UNIQUE INDEX uq_rollouts_one_under_way ON rollouts (model) WHERE state NOT IN ('cancelled', 'promoted', 'rolled_back');

CREATE TABLE decisions (
    event_id BIGINT NOT NULL,
    rollout_id BIGINT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    evidence_json TEXT NOT NULL,
    CONSTRAINT pk_decisions PRIMARY KEY (event_id),
    CONSTRAINT fk_decisions_event_id FOREIGN KEY(event_id) REFERENCES events (event_id),
    CONSTRAINT fk_decisions_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

CREATE INDEX ix_decisions_rollout_id ON decisions (rollout_id);

CREATE TABLE pushes (
    rollout_id {number} NOT NULL,
    model VARCHAR(63) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    reason TEXT NOT NULL,
    labelled_by VARCHAR(63) NOT NULL,
    labelled_at_us BIGINT NOT NULL,
    requests BIGINT,
    bake_until_us BIGINT,
    CONSTRAINT pk_pushes PRIMARY KEY (rollout_id),
    CONSTRAINT ck_pushes_outcome_known CHECK (outcome IN ('open', 'good', 'bad', 'escaped', 'censored')),
    CONSTRAINT fk_pushes_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

CREATE INDEX ix_pushes_model ON pushes (model);

CREATE TABLE rollout_evidence (
    rollout_id {number} NOT NULL,
    metric VARCHAR(63) NOT NULL,
    challenger_units BIGINT NOT NULL,
    challenger_total {double} NOT NULL,
    champion_units BIGINT NOT NULL,
    champion_total {double} NOT NULL,
    log_e {double} NOT NULL,
    log_bound {double} NOT NULL,
    step_units BIGINT NOT NULL,
    latency_bound_us {double},
    evidence_json TEXT NOT NULL,
    history_json TEXT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    CONSTRAINT pk_rollout_evidence PRIMARY KEY (rollout_id, metric),
    CONSTRAINT fk_rollout_evidence_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

CREATE TABLE traffic_plans (
    plan_id {serial} NOT NULL,
    model VARCHAR(63) NOT NULL,
    champion VARCHAR(32) NOT NULL,
    challenger VARCHAR(32),
    share_ppm INTEGER NOT NULL,
    previous VARCHAR(32),
    fallback VARCHAR(32),
    rollout_id {number},
    committed_at_us BIGINT NOT NULL,
    shadow VARCHAR(32),
    shadow_ppm INTEGER NOT NULL,
    serving_config VARCHAR(32),
    runtime VARCHAR(32),
    CONSTRAINT pk_traffic_plans PRIMARY KEY (plan_id),
    CONSTRAINT ck_traffic_plans_shadow_ppm_in_range CHECK (shadow_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT ck_traffic_plans_share_ppm_in_range CHECK (share_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT ck_traffic_plans_no_share_without_challenger CHECK (challenger IS NOT NULL OR share_ppm = 0),
    CONSTRAINT ck_traffic_plans_two_versions CHECK (challenger <> champion),
    CONSTRAINT fk_traffic_plans_champion FOREIGN KEY(champion) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_challenger FOREIGN KEY(challenger) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_previous FOREIGN KEY(previous) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_fallback FOREIGN KEY(fallback) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id),
    CONSTRAINT fk_traffic_plans_shadow FOREIGN KEY(shadow) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_serving_config FOREIGN KEY(serving_config) REFERENCES serving_configs (serving_config),
    CONSTRAINT fk_traffic_plans_runtime FOREIGN KEY(runtime) REFERENCES runtimes (runtime)
);

CREATE INDEX ix_traffic_plans_champion ON traffic_plans (champion);

CREATE INDEX ix_traffic_plans_model ON traffic_plans (model);

CREATE INDEX ix_traffic_plans_rollout_id ON traffic_plans (rollout_id);

CREATE TABLE webhook_responses (
    rollout_id {number} NOT NULL,
    event VARCHAR(16) NOT NULL,
    step INTEGER NOT NULL,
    webhook VARCHAR(63) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    explanation TEXT NOT NULL,
    requested_at_us BIGINT NOT NULL,
    request_json TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    CONSTRAINT pk_webhook_responses PRIMARY KEY (rollout_id, event, step, webhook),
    CONSTRAINT ck_webhook_responses_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_webhook_responses_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

CREATE TABLE queued_rollouts (
    model VARCHAR(63) NOT NULL,
    version VARCHAR(32) NOT NULL,
    policy_json TEXT NOT NULL,
    actor VARCHAR(63) NOT NULL,
    queued_at_us BIGINT NOT NULL,
    CONSTRAINT pk_queued_rollouts PRIMARY KEY (model),
    CONSTRAINT fk_queued_rollouts_version FOREIGN KEY(version) REFERENCES versions (version)
);

COMMENT ON TABLE backouts IS 'One row per back-out. An interrupted one is resumed from `steps_done`.';
COMMENT ON COLUMN backouts.backout_id IS 'Number of the back-out.';
COMMENT ON COLUMN backouts.feed IS 'Feed of the named batch.';
COMMENT ON COLUMN backouts.batch IS 'Batch that was named in the command.';
COMMENT ON COLUMN backouts.state IS 'Whether steps are left to do.';
COMMENT ON COLUMN backouts.plan_json IS 'The steps as shown and executed, canonical JSON.';
COMMENT ON COLUMN backouts.steps_done IS 'How many steps are committed.';
COMMENT ON COLUMN backouts.reason IS 'Why the batch is backed out.';
COMMENT ON COLUMN backouts.actor IS 'Actor that requested it.';
COMMENT ON COLUMN backouts.requested_at_us IS 'When it was requested.';
COMMENT ON COLUMN backouts.changed_at_us IS 'When the last step was committed.';
COMMENT ON TABLE contracts IS 'Every contract that validated a batch.';
COMMENT ON COLUMN contracts.contract_hash IS 'SHA-256 of the contract''s canonical JSON.';
COMMENT ON COLUMN contracts.contract_json IS 'The contract, canonical JSON.';
COMMENT ON COLUMN contracts.first_used_at_us IS 'When it first validated a batch.';
COMMENT ON TABLE declarations IS 'Every declaration that was in force, in order. The newest of a feed or model is in force.';
COMMENT ON COLUMN declarations.declaration_id IS 'Number of the record; it rises.';
COMMENT ON COLUMN declarations.kind IS 'Whether a feed or a model is declared.';
COMMENT ON COLUMN declarations.name IS 'Name of the feed or of the model.';
COMMENT ON COLUMN declarations.digest IS 'SHA-256 of the fields, and for a model of its source files.';
COMMENT ON COLUMN declarations.fields_json IS 'Each declared field by its path, without defaults, canonical JSON.';
COMMENT ON COLUMN declarations.sources_json IS 'Text of each source file by its path; null for a feed.';
COMMENT ON COLUMN declarations.actor IS 'User whose command first ran with it; holdfast for a feed.';
COMMENT ON COLUMN declarations.recorded_at_us IS 'When it was first used, or used again after another one.';
COMMENT ON COLUMN declarations.table_version IS 'For a feed, that of the first load it judged; else the newest.';
COMMENT ON TABLE drills IS 'Drills: what was exercised, the verdict, and until when it is valid.';
COMMENT ON COLUMN drills.drill_id IS 'Number of the drill.';
COMMENT ON COLUMN drills.kind IS 'What was exercised.';
COMMENT ON COLUMN drills.model IS 'Model of the drill.';
COMMENT ON COLUMN drills.verdict IS 'Whether it passed.';
COMMENT ON COLUMN drills.measured_duration_us IS 'Duration that the drill measures, such as that of a rollback; null without a result.';
COMMENT ON COLUMN drills.evidence_json IS 'Observations, canonical JSON.';
COMMENT ON COLUMN drills.explanation IS 'Why it has this verdict, with numbers.';
COMMENT ON COLUMN drills.actor IS 'Actor that started it.';
COMMENT ON COLUMN drills.started_at_us IS 'When it started.';
COMMENT ON COLUMN drills.ended_at_us IS 'When it ended.';
COMMENT ON COLUMN drills.expires_at_us IS 'Until when its verdict is valid.';
COMMENT ON TABLE event_cursors IS 'Read position of each consumer of the event log.';
COMMENT ON COLUMN event_cursors.reader IS 'Consumer of the event log, such as openlineage.';
COMMENT ON COLUMN event_cursors.event_id IS 'Last event that it has processed.';
COMMENT ON TABLE events IS 'The event log. Each event is written in the transaction of its operation; digests form a chain.';
COMMENT ON COLUMN events.event_id IS 'Number of the event; it rises.';
COMMENT ON COLUMN events.at_us IS 'When it happened.';
COMMENT ON COLUMN events.kind IS 'What happened: noun and past participle.';
COMMENT ON COLUMN events.subject IS 'What it happened to.';
COMMENT ON COLUMN events.actor IS 'Actor that caused it: a user, or holdfast.';
COMMENT ON COLUMN events.explanation IS 'Why it happened, with numbers.';
COMMENT ON COLUMN events.digest IS 'SHA-256 over the previous digest and this event.';
COMMENT ON TABLE feeds IS 'One row per feed that ever delivered.';
COMMENT ON COLUMN feeds.feed IS 'Name of the feed.';
COMMENT ON COLUMN feeds.state IS 'What may be done with its rows.';
COMMENT ON COLUMN feeds.contract_hash IS 'Contract of the newest delivery.';
COMMENT ON COLUMN feeds.reason IS 'Why the feed is in this state.';
COMMENT ON COLUMN feeds.changed_at_us IS 'When the state or the contract last changed.';
COMMENT ON TABLE labels IS 'First label of each prediction. Corrections are in `label_corrections`.';
COMMENT ON COLUMN labels.prediction_id IS 'Id from the prediction''s response.';
COMMENT ON COLUMN labels.value IS 'True value, 0 to 1.';
COMMENT ON COLUMN labels.source IS 'Sender of the label.';
COMMENT ON COLUMN labels.received_at_us IS 'When it was received.';
COMMENT ON COLUMN labels.joined IS '1 once it is joined with its prediction, else 0.';
COMMENT ON TABLE leases IS 'Leases: at most one process at a time runs each control loop.';
COMMENT ON COLUMN leases.lease IS 'Name of the lease.';
COMMENT ON COLUMN leases.holder IS 'Process that holds it.';
COMMENT ON COLUMN leases.epoch IS 'Fencing token: rises with each change of holder, checked in each write.';
COMMENT ON COLUMN leases.renewed_at_us IS 'When the holder last renewed it.';
COMMENT ON COLUMN leases.duration_us IS 'How long it lasts without renewal.';
COMMENT ON TABLE log_positions IS 'Read position in each segment of each server''s prediction log.';
COMMENT ON COLUMN log_positions.server IS 'Server that wrote the log.';
COMMENT ON COLUMN log_positions.segment IS 'Number of the log segment.';
COMMENT ON COLUMN log_positions.collected_bytes IS 'Read position in the segment.';
COMMENT ON COLUMN log_positions.predictions IS 'Prediction requests collected from it.';
COMMENT ON COLUMN log_positions.feedback IS 'Labels collected from it.';
COMMENT ON COLUMN log_positions.rejected_labels IS 'Labels that were rejected or quarantined.';
COMMENT ON TABLE request_counts IS 'Requests by version, result and minute, counted from the prediction logs.';
COMMENT ON COLUMN request_counts.model IS 'Model requested.';
COMMENT ON COLUMN request_counts.version IS 'Version that served; empty if none did.';
COMMENT ON COLUMN request_counts.arm IS 'Arm of the rollout.';
COMMENT ON COLUMN request_counts.result IS 'ok, or the kind of error.';
COMMENT ON COLUMN request_counts.minute_start_us IS 'Start of the minute.';
COMMENT ON COLUMN request_counts.requests IS 'Number of requests.';
COMMENT ON COLUMN request_counts.rows IS 'Number of rows in them.';
COMMENT ON COLUMN request_counts.latency_sum_us IS 'Sum of their processor times.';
COMMENT ON COLUMN request_counts.latency_buckets_json IS 'Processor times: counts by bucket of LATENCY_EDGES_SECONDS, canonical JSON.';
COMMENT ON COLUMN request_counts.response_buckets_json IS 'Times to the response, likewise; null for requests of before.';
COMMENT ON COLUMN request_counts.reasons_json IS 'Refused requests by rule of the contract, the commonest, canonical JSON.';
COMMENT ON TABLE runtimes IS 'Registered runtimes: sets of Python and package versions that serve.';
COMMENT ON COLUMN runtimes.runtime IS 'b-<first 12 digits of the digest of its packages>.';
COMMENT ON COLUMN runtimes.packages_json IS 'Versions of Python and of its packages, canonical JSON.';
COMMENT ON COLUMN runtimes.command IS 'Command that starts a server of it; null if unknown.';
COMMENT ON COLUMN runtimes.registered_at_us IS 'When it was registered.';
COMMENT ON TABLE servers IS 'Registered servers: the control loop collects their logs and probes them.';
COMMENT ON COLUMN servers.server IS 'Name of the server.';
COMMENT ON COLUMN servers.model IS 'Model that it serves.';
COMMENT ON COLUMN servers.address IS 'URL of its HTTP API.';
COMMENT ON COLUMN servers.log_directory IS 'Directory of its prediction log.';
COMMENT ON COLUMN servers.started_at_us IS 'When it last started.';
COMMENT ON TABLE serving_configs IS 'Registered limits of servers.';
COMMENT ON COLUMN serving_configs.serving_config IS 'c-<first 12 digits of its digest>.';
COMMENT ON COLUMN serving_configs.config_json IS 'Limits of a server, canonical JSON.';
COMMENT ON COLUMN serving_configs.registered_at_us IS 'When it was registered.';
COMMENT ON TABLE table_versions IS 'One row per transaction that changed the files of a table. A version covers all tables.';
COMMENT ON COLUMN table_versions.table_version IS 'Number of the version.';
COMMENT ON COLUMN table_versions.committed_at_us IS 'When the transaction was written.';
COMMENT ON COLUMN table_versions.reason IS 'Operation that changed the tables.';
COMMENT ON TABLE problems IS 'Problems that health found, from begin to end. A problem lasts once at a time.';
COMMENT ON COLUMN problems.problem_id IS 'Number of the problem.';
COMMENT ON COLUMN problems.model IS 'Model that has it.';
COMMENT ON COLUMN problems.kind IS 'What is wrong, such as feed_suspect.';
COMMENT ON COLUMN problems.subject IS 'What has it: a feed with its batch, a version, a slice, a drill.';
COMMENT ON COLUMN problems.severity IS 'How urgent it is.';
COMMENT ON COLUMN problems.explanation IS 'What was wrong when it was found, with numbers.';
COMMENT ON COLUMN problems.next_command IS 'What to do about it.';
COMMENT ON COLUMN problems.found_event_id IS 'Event of its begin.';
COMMENT ON COLUMN problems.ended_event_id IS 'Event of its end; null while it lasts.';
COMMENT ON TABLE outcome_slices IS 'Slices that each outcome is in. Quality by slice is computed from them.';
COMMENT ON COLUMN outcome_slices.prediction_id IS 'Id of the prediction.';
COMMENT ON COLUMN outcome_slices.slices_json IS 'Value of each slice of its version''s contract, canonical JSON.';
COMMENT ON TABLE traffic_comparisons IS 'The last comparison of each model''s live traffic with its training data.';
COMMENT ON COLUMN traffic_comparisons.model IS 'Model compared.';
COMMENT ON COLUMN traffic_comparisons.version IS 'Champion whose newest requests were compared.';
COMMENT ON COLUMN traffic_comparisons.newest_prediction_at_us IS 'When the newest of them was served; 0 without one.';
COMMENT ON COLUMN traffic_comparisons.computed_at_us IS 'When the comparison was computed.';
COMMENT ON COLUMN traffic_comparisons.comparison_json IS 'Slices and label share, canonical JSON.';
COMMENT ON TABLE violations IS 'Expectations of a feed that a delivery did not meet.';
COMMENT ON COLUMN violations.violation_id IS 'Number of the violation.';
COMMENT ON COLUMN violations.feed IS 'Feed of the delivery.';
COMMENT ON COLUMN violations.batch IS 'Batch of the delivery.';
COMMENT ON COLUMN violations.epoch IS 'Epoch of the load; null for a refused delivery.';
COMMENT ON COLUMN violations.check_name IS 'Expectation that was violated, such as volume or drift.';
COMMENT ON COLUMN violations.subject IS 'Column, slice or rule concerned.';
COMMENT ON COLUMN violations.level IS 'Severity: an error keeps the batch out of training.';
COMMENT ON COLUMN violations.observed IS 'Observed value.';
COMMENT ON COLUMN violations.bound IS 'Limit of the expectation.';
COMMENT ON COLUMN violations.explanation IS 'What was found, with numbers.';
COMMENT ON COLUMN violations.found_at_us IS 'When it was found.';
COMMENT ON COLUMN violations.accepted_at_us IS 'When a user accepted it; null while open.';
COMMENT ON COLUMN violations.accepted_by IS 'User that accepted it.';
COMMENT ON TABLE webhooks IS 'Webhooks that the newest control loop of each model was started with.';
COMMENT ON COLUMN webhooks.model IS 'Model that declares it.';
COMMENT ON COLUMN webhooks.webhook IS 'Name of the webhook.';
COMMENT ON COLUMN webhooks.webhook_json IS 'Declaration of the webhook, canonical JSON.';
COMMENT ON COLUMN webhooks.declared_at_us IS 'When the control loop registered it.';
COMMENT ON TABLE batches IS 'One row per published load. A batch that is loaded again after a back-out gets a new epoch.';
COMMENT ON COLUMN batches.feed IS 'Feed that delivered the batch.';
COMMENT ON COLUMN batches.batch IS 'The sender''s id of the batch.';
COMMENT ON COLUMN batches.epoch IS 'Load number: 0, then one more after each back-out.';
COMMENT ON COLUMN batches.digest IS 'SHA-256 of the content as received.';
COMMENT ON COLUMN batches.contract_hash IS 'Contract that validated it.';
COMMENT ON COLUMN batches.state IS 'Whether the load is published or backed out.';
COMMENT ON COLUMN batches.rows_received IS 'Rows of the delivery.';
COMMENT ON COLUMN batches.rows_loaded IS 'Valid rows.';
COMMENT ON COLUMN batches.rows_quarantined IS 'Rejected rows.';
COMMENT ON COLUMN batches.event_time_min_us IS 'Earliest event time; null without rows.';
COMMENT ON COLUMN batches.event_time_max_us IS 'Latest event time; null without rows.';
COMMENT ON COLUMN batches.table_version IS 'First table version with the load.';
COMMENT ON COLUMN batches.source IS 'Where the batch was read from.';
COMMENT ON COLUMN batches.begun_at_us IS 'When its load began; null in loads of earlier releases.';
COMMENT ON TABLE files IS 'Immutable Parquet files. Version v of a table: files with added <= v and (removed null or > v).';
COMMENT ON COLUMN files.path IS 'Path relative to the store''s root.';
COMMENT ON COLUMN files.table_name IS 'Table that the file belongs to.';
COMMENT ON COLUMN files.feed IS 'Feed of its rows.';
COMMENT ON COLUMN files.rows IS 'Number of rows.';
COMMENT ON COLUMN files.bytes IS 'Size of the file.';
COMMENT ON COLUMN files.sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN files.event_time_min_us IS 'Earliest event time of its valid rows.';
COMMENT ON COLUMN files.event_time_max_us IS 'Latest event time of its valid rows.';
COMMENT ON COLUMN files.added_version IS 'First table version with the file.';
COMMENT ON COLUMN files.removed_version IS 'First table version without the file; null while it is current.';
COMMENT ON TABLE online_definitions IS 'Aggregates whose values are kept up to date.';
COMMENT ON COLUMN online_definitions.aggregate IS 'As in online_features.';
COMMENT ON COLUMN online_definitions.feed IS 'Feed whose rows it aggregates.';
COMMENT ON COLUMN online_definitions.definition_json IS 'Declaration of the aggregate, canonical JSON.';
COMMENT ON COLUMN online_definitions.table_version IS 'Table version up to which the values are complete.';
COMMENT ON TABLE online_features IS 'Values of aggregates. A server reads the newest row known at the request''s time.';
COMMENT ON COLUMN online_features.aggregate IS '<name>.<first 12 digits of its definition''s SHA-256>.';
COMMENT ON COLUMN online_features.entity IS 'Value of the aggregate''s key.';
COMMENT ON COLUMN online_features.known_at_us IS 'From when this value was known.';
COMMENT ON COLUMN online_features.value IS 'The value; null if its rows were backed out.';
COMMENT ON COLUMN online_features.table_version IS 'Table version that wrote it.';
COMMENT ON TABLE outcomes IS 'Predictions joined with their labels. Quality is computed from them.';
COMMENT ON COLUMN outcomes.outcome_id IS 'Number of the outcome.';
COMMENT ON COLUMN outcomes.prediction_id IS 'Id of the prediction.';
COMMENT ON COLUMN outcomes.model IS 'Model that predicted.';
COMMENT ON COLUMN outcomes.version IS 'Version that predicted.';
COMMENT ON COLUMN outcomes.arm IS 'Arm of the rollout that the request was in.';
COMMENT ON COLUMN outcomes.rollout_id IS 'Rollout during which it was predicted, if any.';
COMMENT ON COLUMN outcomes.probability IS 'Predicted probability, 0 to 1.';
COMMENT ON COLUMN outcomes.label IS 'True value, 0 to 1.';
COMMENT ON COLUMN outcomes.event_time_us IS 'Event time of the request, by its caller''s clock.';
COMMENT ON COLUMN outcomes.joined_at_us IS 'When label and prediction were joined.';
COMMENT ON COLUMN outcomes.predicted_at_us IS 'When it was predicted, by the server''s clock.';
COMMENT ON TABLE prediction_files IS 'Parquet files of collected predictions.';
COMMENT ON COLUMN prediction_files.path IS 'Path relative to the store''s root.';
COMMENT ON COLUMN prediction_files.model IS 'Model of the predictions.';
COMMENT ON COLUMN prediction_files.server IS 'Server that logged them.';
COMMENT ON COLUMN prediction_files.segment IS 'Log segment that they were collected from.';
COMMENT ON COLUMN prediction_files.rows IS 'Number of predictions.';
COMMENT ON COLUMN prediction_files.bytes IS 'Size of the file.';
COMMENT ON COLUMN prediction_files.sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN prediction_files.predicted_at_min_us IS 'When the first was served.';
COMMENT ON COLUMN prediction_files.predicted_at_max_us IS 'When the last was served.';
COMMENT ON COLUMN prediction_files.record_number_min IS 'First record number within the segment.';
COMMENT ON COLUMN prediction_files.record_number_max IS 'Last record number within the segment.';
COMMENT ON TABLE probes IS 'The last probe of each server: declared against observed.';
COMMENT ON COLUMN probes.server IS 'Server probed.';
COMMENT ON COLUMN probes.model IS 'Model probed.';
COMMENT ON COLUMN probes.plan_id IS 'Traffic plan that the server reported.';
COMMENT ON COLUMN probes.planned_version IS 'Version that the plan intends.';
COMMENT ON COLUMN probes.observed_version IS 'Version that served the probe.';
COMMENT ON COLUMN probes.verdict IS 'Whether the server follows the plan.';
COMMENT ON COLUMN probes.explanation IS 'Why, with numbers.';
COMMENT ON COLUMN probes.probed_at_us IS 'When it was probed.';
COMMENT ON COLUMN probes.runtime IS 'Runtime that the server reported.';
COMMENT ON COLUMN probes.serving_config IS 'Serving config that the server reported.';
COMMENT ON TABLE shadow_files IS 'Parquet files of collected shadow predictions.';
COMMENT ON COLUMN shadow_files.path IS 'Path relative to the store''s root.';
COMMENT ON COLUMN shadow_files.model IS 'Model of the predictions.';
COMMENT ON COLUMN shadow_files.server IS 'Server that logged them.';
COMMENT ON COLUMN shadow_files.segment IS 'Log segment that they were collected from.';
COMMENT ON COLUMN shadow_files.rows IS 'Number of predictions.';
COMMENT ON COLUMN shadow_files.bytes IS 'Size of the file.';
COMMENT ON COLUMN shadow_files.sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN shadow_files.predicted_at_min_us IS 'When the first was made.';
COMMENT ON COLUMN shadow_files.predicted_at_max_us IS 'When the last was made.';
COMMENT ON TABLE snapshots IS 'Named, immutable versions of the tables. Training always reads a snapshot.';
COMMENT ON COLUMN snapshots.snapshot IS 'Name, with a digest of its content.';
COMMENT ON COLUMN snapshots.table_version IS 'Version of the tables that it reads.';
COMMENT ON COLUMN snapshots.contract_hash IS 'Contract of the model''s feed.';
COMMENT ON COLUMN snapshots.created_at_us IS 'When it was created.';
COMMENT ON COLUMN snapshots.begun_at_us IS 'When its creation began; null in snapshots of earlier releases.';
COMMENT ON TABLE taints IS 'Snapshots and versions derived from backed-out rows. A tainted version gets no new traffic.';
COMMENT ON COLUMN taints.kind IS 'Whether a snapshot or a version is tainted.';
COMMENT ON COLUMN taints.subject IS 'Name of the snapshot or version.';
COMMENT ON COLUMN taints.backout_id IS 'Back-out that tainted it.';
COMMENT ON COLUMN taints.tainted_at_us IS 'When it was tainted.';
COMMENT ON TABLE admissions IS 'Profile of each admitted load. Later batches are compared with it.';
COMMENT ON COLUMN admissions.feed IS 'Feed of the load.';
COMMENT ON COLUMN admissions.batch IS 'Batch of the load.';
COMMENT ON COLUMN admissions.epoch IS 'Epoch of the load.';
COMMENT ON COLUMN admissions.rows_expected IS 'Row count that the sender declared, if any.';
COMMENT ON COLUMN admissions.profile_json IS 'Counts by frozen bin of each column, canonical JSON.';
COMMENT ON COLUMN admissions.rows_digest IS 'SHA-256 of the valid rows, independent of their order.';
COMMENT ON COLUMN admissions.values_digest IS 'SHA-256 of the valid rows without key and event time; empty if the feed does not compare it.';
COMMENT ON COLUMN admissions.sequence_min IS 'Smallest value of the feed''s sequence column.';
COMMENT ON COLUMN admissions.sequence_max IS 'Largest value of the feed''s sequence column.';
COMMENT ON COLUMN admissions.sequence_gaps IS 'How many numbers between them are missing.';
COMMENT ON COLUMN admissions.group_name IS 'Group of the feed at load time; empty without a group, null for a load rebuilt from its files.';
COMMENT ON COLUMN admissions.event_time IS 'Name of the event time column at load time.';

COMMENT ON COLUMN admissions.group_period_us IS 'Length of the periods of the group at load time; null without a group.';

COMMENT ON COLUMN admissions.group_zone IS 'Time zone in which these periods begin.';
COMMENT ON TABLE backout_batches IS 'Loads that a back-out removes: the named batch and those of its group.';
COMMENT ON COLUMN backout_batches.backout_id IS 'Back-out that removes the load.';
COMMENT ON COLUMN backout_batches.feed IS 'Feed of the load.';
COMMENT ON COLUMN backout_batches.batch IS 'Batch of the load.';
COMMENT ON COLUMN backout_batches.epoch IS 'Epoch of the load.';
COMMENT ON COLUMN backout_batches.removed_version IS 'First table version without the load; null until it is removed.';
COMMENT ON TABLE batch_references IS 'Foreign keys between loads. A back-out of the referenced load leaves them dangling.';
COMMENT ON COLUMN batch_references.feed IS 'Feed of the referring load.';
COMMENT ON COLUMN batch_references.batch IS 'Batch of the referring load.';
COMMENT ON COLUMN batch_references.epoch IS 'Epoch of the referring load.';
COMMENT ON COLUMN batch_references.column_name IS 'Column that holds the reference.';
COMMENT ON COLUMN batch_references.to_feed IS 'Feed of the referenced load.';
COMMENT ON COLUMN batch_references.to_key IS 'Key column of the referenced feed.';
COMMENT ON COLUMN batch_references.to_batch IS 'Batch of the referenced load.';
COMMENT ON COLUMN batch_references.to_epoch IS 'Epoch of the referenced load.';
COMMENT ON COLUMN batch_references.lookback_start_us IS 'Earliest event time that was searched; null for all rows.';
COMMENT ON TABLE file_row_groups IS 'Loads of each file: one when written, several after compaction, each in row groups of its own.';
COMMENT ON COLUMN file_row_groups.path IS 'The file.';
COMMENT ON COLUMN file_row_groups.row_group IS 'First row group of the load in the file.';
COMMENT ON COLUMN file_row_groups.feed IS 'Feed of the load.';
COMMENT ON COLUMN file_row_groups.batch IS 'Batch of the load.';
COMMENT ON COLUMN file_row_groups.epoch IS 'Epoch of the load.';
COMMENT ON COLUMN file_row_groups.rows IS 'Rows of the load in the file.';
COMMENT ON COLUMN file_row_groups.removed_version IS 'First table version in which readers skip these row groups; the file stays for other loads.';
COMMENT ON TABLE selections IS 'Rows of a snapshot chosen for training. Equal snapshot and selection give equal rows.';
COMMENT ON COLUMN selections.snapshot IS 'The snapshot.';
COMMENT ON COLUMN selections.selection_hash IS 'SHA-256 of selection and seed.';
COMMENT ON COLUMN selections.seed IS 'Seed of the random choice.';
COMMENT ON COLUMN selections.selection_json IS 'Filters, quotas, caps and weights, canonical JSON.';
COMMENT ON COLUMN selections.removed_rows_json IS 'Rows removed by each filter and cap, canonical JSON.';
COMMENT ON COLUMN selections.rows_total IS 'Rows of the snapshot.';
COMMENT ON COLUMN selections.rows_selected IS 'Rows for training.';
COMMENT ON TABLE online_withheld_loads IS 'Loads whose rows are in no online value: suspect ones, and those that wait for other feeds of their group.';
COMMENT ON COLUMN online_withheld_loads.feed IS 'Feed of the load.';
COMMENT ON COLUMN online_withheld_loads.batch IS 'Batch of the load.';
COMMENT ON COLUMN online_withheld_loads.epoch IS 'Epoch of the load.';
COMMENT ON TABLE snapshot_incomplete_loads IS 'Loads excluded from a snapshot, because another feed of their group had not delivered the batch.';
COMMENT ON COLUMN snapshot_incomplete_loads.snapshot IS 'The snapshot.';
COMMENT ON COLUMN snapshot_incomplete_loads.feed IS 'Feed of the load.';
COMMENT ON COLUMN snapshot_incomplete_loads.batch IS 'Batch of the load.';
COMMENT ON COLUMN snapshot_incomplete_loads.epoch IS 'Epoch of the load.';
COMMENT ON TABLE snapshot_quality IS 'How good the data of each snapshot are, as assessed when it was created or trained on.';
COMMENT ON COLUMN snapshot_quality.snapshot IS 'The snapshot.';
COMMENT ON COLUMN snapshot_quality.score IS 'Product of the shares, 0 to 1.';
COMMENT ON COLUMN snapshot_quality.complete IS 'Rows that came, of those that the senders declared.';
COMMENT ON COLUMN snapshot_quality.valid IS 'Rows that the contracts accepted, of those that came.';
COMMENT ON COLUMN snapshot_quality.as_expected IS 'Accepted rows in loads without a violation, of all accepted rows.';
COMMENT ON COLUMN snapshot_quality.assessed_at_us IS 'When it was last assessed: violations may be found later.';
COMMENT ON TABLE snapshot_slices IS 'Rows of each slice before and after selection.';
COMMENT ON COLUMN snapshot_slices.snapshot IS 'The snapshot.';
COMMENT ON COLUMN snapshot_slices.selection_hash IS 'As in selections.';
COMMENT ON COLUMN snapshot_slices.column_name IS 'Column that is sliced by.';
COMMENT ON COLUMN snapshot_slices.value IS 'Value of the slice.';
COMMENT ON COLUMN snapshot_slices.rows_total IS 'Rows of the slice in the snapshot.';
COMMENT ON COLUMN snapshot_slices.rows_selected IS 'Rows left after quotas and caps.';
COMMENT ON COLUMN snapshot_slices.weight_selected IS 'Sum of the weights of these rows, with mean 1 over all; null if not recorded.';
COMMENT ON TABLE snapshot_tables IS 'Size of each table in a snapshot.';
COMMENT ON COLUMN snapshot_tables.snapshot IS 'The snapshot.';
COMMENT ON COLUMN snapshot_tables.table_name IS 'Table that it reads.';
COMMENT ON COLUMN snapshot_tables.rows IS 'Rows of the table in the snapshot.';
COMMENT ON COLUMN snapshot_tables.files IS 'Files of the table in the snapshot.';
COMMENT ON TABLE vacuumed_snapshots IS 'Snapshots that lost files to a vacuum: their contents are known but can no longer be read.';
COMMENT ON COLUMN vacuumed_snapshots.snapshot IS 'The snapshot.';
COMMENT ON COLUMN vacuumed_snapshots.vacuumed_at_us IS 'When its first file was removed.';
COMMENT ON TABLE versions IS 'Trained versions of models.';
COMMENT ON COLUMN versions.version IS 'v<number>-<first 8 digits of the digest>.';
COMMENT ON COLUMN versions.model IS 'Model of the version.';
COMMENT ON COLUMN versions.number IS 'Counts the versions of the model from 1.';
COMMENT ON COLUMN versions.digest IS 'SHA-256 of the ONNX file with metadata.';
COMMENT ON COLUMN versions.bytes IS 'Size of the ONNX file.';
COMMENT ON COLUMN versions.snapshot IS 'Snapshot that it was trained on.';
COMMENT ON COLUMN versions.contract_hash IS 'Contract of its inputs.';
COMMENT ON COLUMN versions.features_hash IS 'SHA-256 of its features.';
COMMENT ON COLUMN versions.learner IS 'Algorithm that trained it.';
COMMENT ON COLUMN versions.role IS 'A candidate may be rolled out; a heuristic is baseline and fallback version.';
COMMENT ON COLUMN versions.state IS 'Whether it passed its gates.';
COMMENT ON COLUMN versions.created_at_us IS 'When it was registered.';
COMMENT ON COLUMN versions.begun_at_us IS 'When its training began; null in versions of earlier releases.';
COMMENT ON TABLE compatibility_tests IS 'Tests of a version with a runtime and a serving config. Only tested combinations serve.';
COMMENT ON COLUMN compatibility_tests.version IS 'Version tested.';
COMMENT ON COLUMN compatibility_tests.runtime IS 'Runtime tested with.';
COMMENT ON COLUMN compatibility_tests.serving_config IS 'Serving config tested with.';
COMMENT ON COLUMN compatibility_tests.verdict IS 'Whether the three work together.';
COMMENT ON COLUMN compatibility_tests.explanation IS 'Why, with numbers.';
COMMENT ON COLUMN compatibility_tests.evaluated_at_us IS 'When they were tested.';
COMMENT ON TABLE gate_results IS 'Every verdict of every gate on every version.';
COMMENT ON COLUMN gate_results.gate_result_id IS 'Number of the result.';
COMMENT ON COLUMN gate_results.version IS 'Version that was evaluated.';
COMMENT ON COLUMN gate_results.gate IS 'Name of the gate.';
COMMENT ON COLUMN gate_results.verdict IS 'Whether the version passed.';
COMMENT ON COLUMN gate_results.observed IS 'Observed value.';
COMMENT ON COLUMN gate_results.low IS 'Lower end of its confidence interval.';
COMMENT ON COLUMN gate_results.high IS 'Upper end of its confidence interval.';
COMMENT ON COLUMN gate_results.bound IS 'Limit of the gate.';
COMMENT ON COLUMN gate_results.explanation IS 'Why, with numbers.';
COMMENT ON COLUMN gate_results.evaluated_at_us IS 'When it was evaluated.';
COMMENT ON TABLE rollouts IS 'One row per rollout. A model has at most one under way.';
COMMENT ON COLUMN rollouts.rollout_id IS 'Number of the rollout.';
COMMENT ON COLUMN rollouts.model IS 'Model rolled out.';
COMMENT ON COLUMN rollouts.challenger IS 'Version rolled out.';
COMMENT ON COLUMN rollouts.champion IS 'Version that it replaces; null for a model''s first version.';
COMMENT ON COLUMN rollouts.state IS 'State of the rollout.';
COMMENT ON COLUMN rollouts.step IS 'Index into the steps of its policy.';
COMMENT ON COLUMN rollouts.policy_json IS 'Policy declared at its start, canonical JSON.';
COMMENT ON COLUMN rollouts.started_at_us IS 'When it started.';
COMMENT ON COLUMN rollouts.step_started_at_us IS 'When its current step started.';
COMMENT ON COLUMN rollouts.changed_at_us IS 'When its state or step last changed.';
COMMENT ON COLUMN rollouts.reason IS 'Why it is in this state, with numbers.';
COMMENT ON COLUMN rollouts.actor IS 'Actor that started it: a user, or holdfast.';
COMMENT ON COLUMN rollouts.runtime IS 'Runtime pushed with the version, if any.';
COMMENT ON COLUMN rollouts.serving_config IS 'Serving config pushed with the version, if any.';
COMMENT ON TABLE decisions IS 'Evidence behind each decision about a rollout. The event explains it.';
COMMENT ON COLUMN decisions.event_id IS 'Event of the decision.';
COMMENT ON COLUMN decisions.rollout_id IS 'Rollout decided about.';
COMMENT ON COLUMN decisions.kind IS 'Transition of the state machine.';
COMMENT ON COLUMN decisions.evidence_json IS 'Verdict on each metric with its numbers, canonical JSON.';
COMMENT ON TABLE pushes IS 'Outcome of each push. One that was not observed to its end is censored.';
COMMENT ON COLUMN pushes.rollout_id IS 'Rollout of the push.';
COMMENT ON COLUMN pushes.model IS 'Model pushed.';
COMMENT ON COLUMN pushes.outcome IS 'Whether the push was good or bad.';
COMMENT ON COLUMN pushes.reason IS 'Why it has this outcome, with numbers.';
COMMENT ON COLUMN pushes.labelled_by IS 'Actor that set the outcome: a user, or holdfast.';
COMMENT ON COLUMN pushes.labelled_at_us IS 'When the outcome was set.';
COMMENT ON COLUMN pushes.requests IS 'Requests that the challenger served in the rollout.';
COMMENT ON COLUMN pushes.bake_until_us IS 'End of the bake time after a promotion.';
COMMENT ON TABLE rollout_evidence IS 'Evidence of each rollout by metric. Units are those served, not the configured share.';
COMMENT ON COLUMN rollout_evidence.rollout_id IS 'Rollout of the evidence.';
COMMENT ON COLUMN rollout_evidence.metric IS 'Metric that is compared.';
COMMENT ON COLUMN rollout_evidence.challenger_units IS 'Units that the challenger served.';
COMMENT ON COLUMN rollout_evidence.challenger_total IS 'Its bad requests, or its sum of scores.';
COMMENT ON COLUMN rollout_evidence.champion_units IS 'Units that the champion served.';
COMMENT ON COLUMN rollout_evidence.champion_total IS 'Its bad requests, or its sum of scores.';
COMMENT ON COLUMN rollout_evidence.log_e IS 'Natural logarithm of the largest e-value reached.';
COMMENT ON COLUMN rollout_evidence.log_bound IS 'Natural logarithm of the e-value that declares harm.';
COMMENT ON COLUMN rollout_evidence.step_units IS 'Units of the challenger in the current step.';
COMMENT ON COLUMN rollout_evidence.latency_bound_us IS 'Latency above which a request is slow; only of metrics that compare latency.';
COMMENT ON COLUMN rollout_evidence.evidence_json IS 'Sequential tests and what they remember, JSON.';
COMMENT ON COLUMN rollout_evidence.history_json IS 'Seconds and log e-values for the chart, JSON.';
COMMENT ON COLUMN rollout_evidence.updated_at_us IS 'When it was last updated.';
COMMENT ON TABLE traffic_plans IS 'Append-only traffic plans. Servers follow the newest plan of their model.';
COMMENT ON COLUMN traffic_plans.plan_id IS 'Number of the plan; it rises.';
COMMENT ON COLUMN traffic_plans.model IS 'Model of the plan.';
COMMENT ON COLUMN traffic_plans.champion IS 'Version that serves what the challenger does not.';
COMMENT ON COLUMN traffic_plans.challenger IS 'Version that is rolled out, if any.';
COMMENT ON COLUMN traffic_plans.share_ppm IS 'Challenger''s share of the units, parts per million.';
COMMENT ON COLUMN traffic_plans.previous IS 'Version that a rollback returns to, if any.';
COMMENT ON COLUMN traffic_plans.fallback IS 'Version that serves if no other can.';
COMMENT ON COLUMN traffic_plans.rollout_id IS 'Rollout that made the plan, if any.';
COMMENT ON COLUMN traffic_plans.committed_at_us IS 'When the plan was written.';
COMMENT ON COLUMN traffic_plans.shadow IS 'Version that gets copies of requests, if any.';
COMMENT ON COLUMN traffic_plans.shadow_ppm IS 'Share of requests copied, parts per million.';
COMMENT ON COLUMN traffic_plans.serving_config IS 'Serving config to apply; null keeps the current one.';
COMMENT ON COLUMN traffic_plans.runtime IS 'Runtime to serve with; null keeps the current one.';
COMMENT ON TABLE webhook_responses IS 'Responses of webhooks to the steps of a rollout. Each is requested until it responds.';
COMMENT ON COLUMN webhook_responses.rollout_id IS 'The rollout.';
COMMENT ON COLUMN webhook_responses.event IS 'Transition for which the webhook was called.';
COMMENT ON COLUMN webhook_responses.step IS 'Step of the rollout.';
COMMENT ON COLUMN webhook_responses.webhook IS 'Name of the webhook.';
COMMENT ON COLUMN webhook_responses.verdict IS 'Whether it consents.';
COMMENT ON COLUMN webhook_responses.explanation IS 'Reason that it gave, or why there is no response.';
COMMENT ON COLUMN webhook_responses.requested_at_us IS 'When it was last requested.';
COMMENT ON COLUMN webhook_responses.request_json IS 'Body of the request, canonical JSON.';
COMMENT ON COLUMN webhook_responses.attempts IS 'How often it was requested.';
COMMENT ON TABLE queued_rollouts IS 'The version of each model that is rolled out when the rollout under way ends. A newer one replaces it.';
COMMENT ON COLUMN queued_rollouts.model IS 'Model to roll out.';
COMMENT ON COLUMN queued_rollouts.version IS 'Version that waits.';
COMMENT ON COLUMN queued_rollouts.policy_json IS 'Policy declared when it was requested, canonical JSON.';
COMMENT ON COLUMN queued_rollouts.actor IS 'User that requested it.';
COMMENT ON COLUMN queued_rollouts.queued_at_us IS 'When it was requested.';

CREATE TABLE withdrawn_outcomes (
    prediction_id VARCHAR(64) NOT NULL,
    CONSTRAINT pk_withdrawn_outcomes PRIMARY KEY (prediction_id)
);

COMMENT ON TABLE withdrawn_outcomes IS 'Predictions that had an outcome whose label was withdrawn. The evidence of rollouts counts each once.';

COMMENT ON COLUMN withdrawn_outcomes.prediction_id IS 'Id of the prediction.';

CREATE TABLE key_labels (
    key_label_id {serial} NOT NULL,
    model VARCHAR(63) NOT NULL,
    key_digest VARCHAR(64) NOT NULL,
    key_json TEXT NOT NULL,
    value {double} NOT NULL,
    source VARCHAR(63) NOT NULL,
    received_at_us BIGINT NOT NULL,
    CONSTRAINT pk_key_labels PRIMARY KEY (key_label_id)
);

CREATE INDEX ix_key_labels_model_key_digest ON key_labels (model, key_digest);

COMMENT ON TABLE key_labels IS 'Labels that callers sent by the key of a row, with every correction.';
COMMENT ON COLUMN key_labels.key_label_id IS 'Number of the label.';
COMMENT ON COLUMN key_labels.model IS 'Model whose rows it labels.';
COMMENT ON COLUMN key_labels.key_digest IS 'SHA-256 of `key_json`.';
COMMENT ON COLUMN key_labels.key_json IS 'Business key of the row: its columns and their values, canonical JSON.';
COMMENT ON COLUMN key_labels.value IS 'True value, 0 or 1.';
COMMENT ON COLUMN key_labels.source IS 'Sender of the label.';
COMMENT ON COLUMN key_labels.received_at_us IS 'When it was received.';

CREATE TABLE failed_operations (
    event_id {number} NOT NULL,
    begun_at_us BIGINT NOT NULL,
    source TEXT NOT NULL,
    CONSTRAINT pk_failed_operations PRIMARY KEY (event_id),
    CONSTRAINT fk_failed_operations_event_id FOREIGN KEY(event_id) REFERENCES events (event_id)
);

COMMENT ON TABLE failed_operations IS 'Loads and trainings that failed or were refused: what their events do not state.';
COMMENT ON COLUMN failed_operations.event_id IS 'Event of the failure.';
COMMENT ON COLUMN failed_operations.begun_at_us IS 'When the operation began.';
COMMENT ON COLUMN failed_operations.source IS 'What it read: the source of a delivery, or a snapshot.';

CREATE TABLE label_corrections (
    label_correction_id {serial} NOT NULL,
    prediction_id VARCHAR(64) NOT NULL,
    value {double} NOT NULL,
    source VARCHAR(63) NOT NULL,
    received_at_us BIGINT NOT NULL,
    CONSTRAINT pk_label_corrections PRIMARY KEY (label_correction_id),
    CONSTRAINT fk_label_corrections_prediction_id FOREIGN KEY(prediction_id) REFERENCES labels (prediction_id)
);

CREATE INDEX ix_label_corrections_prediction_id ON label_corrections (prediction_id);

CREATE TABLE quarantined_labels (
    quarantined_label_id {serial} NOT NULL,
    model VARCHAR(63) NOT NULL,
    prediction_id VARCHAR(64),
    key_json TEXT,
    value {double} NOT NULL,
    source VARCHAR(63) NOT NULL,
    received_at_us BIGINT NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT pk_quarantined_labels PRIMARY KEY (quarantined_label_id)
);

CREATE INDEX ix_quarantined_labels_model_source ON quarantined_labels (model, source);

CREATE TABLE label_policies (
    model VARCHAR(63) NOT NULL,
    corrections VARCHAR(16) NOT NULL,
    declared_at_us BIGINT NOT NULL,
    CONSTRAINT pk_label_policies PRIMARY KEY (model),
    CONSTRAINT ck_label_policies_corrections_known CHECK (corrections IN ('latest', 'first'))
);

CREATE TABLE secrets (
    purpose VARCHAR(31) NOT NULL,
    secret_hex VARCHAR(64) NOT NULL,
    created_at_us BIGINT NOT NULL,
    CONSTRAINT pk_secrets PRIMARY KEY (purpose)
);

COMMENT ON TABLE label_corrections IS 'Later labels of predictions with other values, as the corrections of the label feed allow.';
COMMENT ON COLUMN label_corrections.label_correction_id IS 'Number of the correction; a new one when its label is joined.';
COMMENT ON COLUMN label_corrections.prediction_id IS 'Id of the prediction.';
COMMENT ON COLUMN label_corrections.value IS 'True value, 0 to 1.';
COMMENT ON COLUMN label_corrections.source IS 'Sender of the correction.';
COMMENT ON COLUMN label_corrections.received_at_us IS 'When it was received; later than the label that it corrects.';
COMMENT ON TABLE quarantined_labels IS 'Labels that contradict the label of another source or name no row of several. They label nothing.';
COMMENT ON COLUMN quarantined_labels.quarantined_label_id IS 'Number of the label.';
COMMENT ON COLUMN quarantined_labels.model IS 'Model of the prediction or row.';
COMMENT ON COLUMN quarantined_labels.prediction_id IS 'Id of the prediction; null for a label by key.';
COMMENT ON COLUMN quarantined_labels.key_json IS 'Business key of the row, canonical JSON; null for a label by id.';
COMMENT ON COLUMN quarantined_labels.value IS 'Value that it brought, 0 to 1.';
COMMENT ON COLUMN quarantined_labels.source IS 'Sender of the label.';
COMMENT ON COLUMN quarantined_labels.received_at_us IS 'When it was received.';
COMMENT ON COLUMN quarantined_labels.reason IS 'Why it is quarantined, with the label that stands.';
COMMENT ON TABLE label_policies IS 'Declared corrections of each model''s labels, for servers that do not load the declaration.';
COMMENT ON COLUMN label_policies.model IS 'Model whose labels are corrected.';
COMMENT ON COLUMN label_policies.corrections IS 'Which of several labels counts.';
COMMENT ON COLUMN label_policies.declared_at_us IS 'When it was declared.';
COMMENT ON TABLE secrets IS 'Secrets of this ledger.';
COMMENT ON COLUMN secrets.purpose IS 'What keys derive from it for.';
COMMENT ON COLUMN secrets.secret_hex IS 'The secret, hexadecimal, for servers and control loops alone.';
COMMENT ON COLUMN secrets.created_at_us IS 'When it was created.';
COMMENT ON COLUMN labels.server IS 'While it waits: server that its id names.';
COMMENT ON COLUMN labels.segment IS 'While it waits: log segment that its id names.';
COMMENT ON COLUMN labels.number IS 'While it waits: record number that its id names.';
COMMENT ON COLUMN labels.look_at_us IS 'While it waits: when it is decided again.';
COMMENT ON COLUMN servers.tagged_from_segment IS 'First log segment whose ids all have a tag; null if none is known.';
COMMENT ON COLUMN servers.boot_id IS 'Id of the process that last started; null in earlier releases.';
COMMENT ON COLUMN servers.release IS 'Release that it runs; null in earlier releases.';
COMMENT ON COLUMN servers.host IS 'Name of the host that it runs on; null in earlier releases.';
COMMENT ON COLUMN servers.private_address IS 'URL for operators; null if it is `address`.';

CREATE TABLE evidence_windows (
    rollout_id {number} NOT NULL,
    minute_start_us BIGINT NOT NULL,
    share_ppm INTEGER NOT NULL,
    opened_at_us BIGINT NOT NULL,
    closes_at_us BIGINT NOT NULL,
    units INTEGER NOT NULL,
    requests_json TEXT NOT NULL,
    CONSTRAINT pk_evidence_windows PRIMARY KEY (rollout_id, minute_start_us, share_ppm),
    CONSTRAINT fk_evidence_windows_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

COMMENT ON TABLE evidence_windows IS 'Open windows of the tests of each rollout: what was collected and is not folded into its evidence yet.';
COMMENT ON COLUMN evidence_windows.rollout_id IS 'Rollout of the requests.';
COMMENT ON COLUMN evidence_windows.minute_start_us IS 'Minute in which servers answered them, by their clocks.';
COMMENT ON COLUMN evidence_windows.share_ppm IS 'Challenger''s share under which they were answered; -1 if their records state none.';
COMMENT ON COLUMN evidence_windows.opened_at_us IS 'When the control loop opened the window.';
COMMENT ON COLUMN evidence_windows.closes_at_us IS 'When it is closed, with however few units it has.';
COMMENT ON COLUMN evidence_windows.units IS 'Different units that it has.';
COMMENT ON COLUMN evidence_windows.requests_json IS 'Requests that are no evidence yet, JSON; units are hashes.';

CREATE TABLE untrained_loads (
    version VARCHAR(32) NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    rows_held_out BIGINT NOT NULL,
    CONSTRAINT pk_untrained_loads PRIMARY KEY (version, feed, batch, epoch),
    CONSTRAINT fk_untrained_loads_version FOREIGN KEY(version) REFERENCES versions (version),
    CONSTRAINT fk_untrained_loads_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch)
);
CREATE TABLE members (
    server VARCHAR(63) NOT NULL,
    started_at_us BIGINT NOT NULL,
    kernel_id VARCHAR(36) NOT NULL,
    beats BIGINT NOT NULL,
    beat VARCHAR(16) NOT NULL,
    heard_at_us BIGINT NOT NULL,
    stated VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    since_us BIGINT NOT NULL,
    forgotten_at_us BIGINT,
    CONSTRAINT pk_members PRIMARY KEY (server),
    CONSTRAINT ck_members_stated_known CHECK (stated IN ('serving', 'draining', 'ended')),
    CONSTRAINT ck_members_state_known CHECK (state IN ('present', 'draining', 'silent', 'gone', 'lost')),
    CONSTRAINT fk_members_server FOREIGN KEY(server) REFERENCES servers (server)
);

CREATE TABLE server_conflicts (
    server VARCHAR(63) NOT NULL,
    boot_id VARCHAR(16) NOT NULL,
    address VARCHAR(255) NOT NULL,
    host VARCHAR(255) NOT NULL,
    log_directory VARCHAR(255) NOT NULL,
    heard_at_us BIGINT NOT NULL,
    explanation TEXT NOT NULL,
    CONSTRAINT pk_server_conflicts PRIMARY KEY (server, boot_id),
    CONSTRAINT fk_server_conflicts_server FOREIGN KEY(server) REFERENCES servers (server)
);

COMMENT ON TABLE members IS 'Heartbeats of servers, and what each server is to its model.';
COMMENT ON TABLE server_conflicts IS 'Living processes that state the name of another server (HF304).';
COMMENT ON COLUMN members.server IS 'Server that writes heartbeats.';
COMMENT ON COLUMN members.started_at_us IS '`servers.started_at_us` of the process that writes them.';
COMMENT ON COLUMN members.kernel_id IS 'Id of the start of its host''s kernel; empty if unknown.';
COMMENT ON COLUMN members.beats IS 'Number of its last heartbeat.';
COMMENT ON COLUMN members.beat IS 'Random text of its last heartbeat.';
COMMENT ON COLUMN members.heard_at_us IS 'When that came, by the ledger''s clock.';
COMMENT ON COLUMN members.stated IS 'What the process states of itself.';
COMMENT ON COLUMN members.state IS 'What the server is to its model.';
COMMENT ON COLUMN members.since_us IS 'Since when, by the ledger''s clock.';
COMMENT ON COLUMN members.forgotten_at_us IS 'When an operator forgot it, by the ledger''s clock.';
COMMENT ON COLUMN server_conflicts.server IS 'Name that two processes state.';
COMMENT ON COLUMN server_conflicts.boot_id IS 'Id of the second process.';
COMMENT ON COLUMN server_conflicts.address IS 'URL of its HTTP API.';
COMMENT ON COLUMN server_conflicts.host IS 'Name of its host.';
COMMENT ON COLUMN server_conflicts.log_directory IS 'Directory of its prediction log, which is not collected.';
COMMENT ON COLUMN server_conflicts.heard_at_us IS 'Its last heartbeat, by the ledger''s clock.';
COMMENT ON COLUMN server_conflicts.explanation IS 'Which process has the name, and where.';
COMMENT ON COLUMN taints.row_use IS 'evaluated if only held-out rows of a version are backed out; null for all others.';
COMMENT ON COLUMN versions.training_digest IS 'SHA-256 of its file without the snapshot, and of its training and held-out rows; null if not known.';
COMMENT ON TABLE untrained_loads IS 'Loads of a version''s snapshot that none of its training rows is from. Of other loads that is not known.';
COMMENT ON COLUMN untrained_loads.version IS 'Version whose snapshot has the load.';
COMMENT ON COLUMN untrained_loads.feed IS 'Feed of the load.';
COMMENT ON COLUMN untrained_loads.batch IS 'Batch of the load.';
COMMENT ON COLUMN untrained_loads.epoch IS 'Epoch of the load.';
COMMENT ON COLUMN untrained_loads.rows_held_out IS 'Held-out rows of the version that are from the load.';
