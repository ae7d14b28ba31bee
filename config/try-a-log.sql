-- A database like the communicator's with one beam that is being simulated; see config/try-a-log.yaml.
PRAGMA journal_mode = WAL;
CREATE TABLE cases (case_id TEXT PRIMARY KEY, status TEXT NOT NULL);
CREATE TABLE beams (
    beam_id TEXT PRIMARY KEY,
    parent_case_id TEXT NOT NULL,
    beam_path TEXT NOT NULL,
    beam_number INTEGER,
    status TEXT NOT NULL,
    progress REAL DEFAULT 0.0,
    hpc_job_id TEXT,
    error_message TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (parent_case_id) REFERENCES cases (case_id)
);
INSERT INTO cases VALUES ('70010001', 'processing');
INSERT INTO beams (beam_id, parent_case_id, beam_path, beam_number, status)
VALUES ('70010001_beam_1', '70010001', '/data/70010001/beam_1', 1, 'simulation_running');
