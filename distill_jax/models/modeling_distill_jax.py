"""BERT with mean or plain [CLS] pooling, for ``transformers``, which has no class for it.

A copy of this file lies in every folder that needs it. Nothing in distill_jax imports it: it is for
``AutoModelForSequenceClassification.from_pretrained(FOLDER, trust_remote_code=True)``.
"""

import torch
from transformers import BertConfig, BertModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class PooledBertConfig(PretrainedConfig):
    """A BERT's configuration (``bert``) and what the head reads (``pooling``: mean or cls)."""

    model_type = "distill_jax_bert"

    def __init__(self, bert=None, pooling="mean", **kwargs):
        super().__init__(**kwargs)
        self.bert = bert or {}
        self.pooling = pooling


class PooledBertForSequenceClassification(PreTrainedModel):
    """BERT without its pooler, and a linear head on pooled hidden states."""

    config_class = PooledBertConfig
    base_model_prefix = "backbone"

    def __init__(self, config):
        super().__init__(config)
        bert = BertConfig(**config.bert)
        rate = bert.hidden_dropout_prob
        if bert.classifier_dropout is not None:
            rate = bert.classifier_dropout
        self.backbone = BertModel(bert, add_pooling_layer=False)
        self.dropout = torch.nn.Dropout(rate)
        self.classifier = torch.nn.Linear(bert.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids, attention_mask=None, token_type_ids=None, labels=None, return_dict=True
    ):
        """Logits [B, C], and the cross-entropy where ``labels`` [B] are given."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden_BTD = self.backbone(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        pooled_BD = hidden_BTD[:, 0]
        if self.config.pooling == "mean":
            where_BT1 = attention_mask.unsqueeze(-1).to(hidden_BTD.dtype)
            pooled_BD = (hidden_BTD * where_BT1).sum(1) / where_BT1.sum(1).clamp(min=1)
        logits_BC = self.classifier(self.dropout(pooled_BD))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits_BC, labels)
        output = SequenceClassifierOutput(loss=loss, logits=logits_BC)
        return output if return_dict else output.to_tuple()
