"""Certification: the points of the front are trained again over seeds, and what they hold then is told beside them."""

from autoprune.search.certification.certification import Certification, CertificationStatus
from autoprune.study.replication import certified_metrics, certified_results, with_certification

__all__ = ["Certification", "CertificationStatus", "certified_metrics", "certified_results", "with_certification"]
