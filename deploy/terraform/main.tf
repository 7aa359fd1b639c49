# Resources of the production settings on Google Cloud: a bucket for the lake, a data set, and one account that may use
# these two and nothing else. Tables are made by the pipeline.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
}

resource "google_storage_bucket" "lake" {
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # Objects that are deleted by mistake can be restored for a week.
  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  # Parts of uploads whose process was killed.
  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_bigquery_dataset" "tables" {
  dataset_id = var.dataset
  location   = var.location

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_service_account" "pipeline" {
  account_id   = "backfill-assets"
  display_name = "backfill-assets: lake and tables"
}

resource "google_storage_bucket_iam_member" "lake" {
  bucket = google_storage_bucket.lake.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pipeline.member
}

resource "google_bigquery_dataset_iam_member" "tables" {
  dataset_id = google_bigquery_dataset.tables.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.pipeline.member
}

# Load jobs and queries belong to the project; the roles above say what they may read and write.
resource "google_project_iam_member" "jobs" {
  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = google_service_account.pipeline.member
}

# On GKE pods act for the account without a key: `serviceAccount` in deploy/helm-values.yaml.
resource "google_service_account_iam_member" "pods" {
  count              = var.kubernetes_namespace == "" ? 0 : 1
  service_account_id = google_service_account.pipeline.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_namespace}/backfill-assets]"
}
